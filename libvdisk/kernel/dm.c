/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dm.c - device-mapper, through libdevmapper
 *
 * Where udev runs it makes the names under /dev, and we wait for it by its
 * cookies; where it does not, or DM_DISABLE_UDEV says so, libdevmapper makes
 * them.  Several changes may share a cookie and one wait (vd_dm_hold): udev works
 * at several devices at a time, and looking at one takes it longer than all else.
 * What the library would print is kept for the message.
 */
#include <errno.h>
#include <libdevmapper.h>
#include <pthread.h>
#include <stdio.h>
#include <stdarg.h>
#include <sys/sysmacros.h>

#include "core/driver.h"
#include "core/late.h"
#include "kernel/host.h"

#define BUSY_MS 5000	/* so long is a device that is busy tried again */

/* ---- the library ---- */

#define DM_FUNCTIONS(F) \
	F(get_next_target) F(log_with_errno_init) F(pool_create) F(pool_destroy) \
	F(split_lvm_name) F(task_add_target) F(task_create) F(task_deferred_remove) \
	F(task_destroy) F(task_get_errno) F(task_get_info) F(task_get_name) \
	F(task_get_names) F(task_get_uuid) F(task_no_open_count) F(task_run) \
	F(task_set_cookie) F(task_set_major) F(task_set_minor) F(task_set_name) \
	F(task_set_ro) F(task_set_uuid) F(task_update_nodes) F(udev_complete) \
	F(udev_get_sync_support) F(udev_wait)

static struct {
#define MEMBER(f) __typeof__(dm_##f) *(f);
	DM_FUNCTIONS(MEMBER)
#undef MEMBER
} dm;
static struct vdisk_error dm_problem;

static _Thread_local char last_log[200];

__attribute__((format(printf, 5, 6)))
static void keep_log(int level, const char *file, int line, int code, const char *fmt, ...)
{
	va_list ap;

	(void)file, (void)line, (void)code;
	if ((level & 7) > 4)	/* only warnings and worse */
		return;
	va_start(ap, fmt);
	vsnprintf(last_log, sizeof(last_log), fmt, ap);
	va_end(ap);
	last_log[strcspn(last_log, "\n")] = '\0';
}

static void dm_load(void)
{
#define SYMBOL(f) { "dm_" #f, offsetof(__typeof__(dm), f) },
	static const struct vd_late_symbol symbols[] = { DM_FUNCTIONS(SYMBOL) };
#undef SYMBOL

	if (vd_late_load("libdevmapper.so.1.02.1", symbols, ARRAY_SIZE(symbols), &dm,
			 &dm_problem) == 0)
		dm.log_with_errno_init(keep_log);
}

/* Before anything else here. */
static int dm_setup(struct vdisk_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, dm_load);
	last_log[0] = '\0';
	return dm_problem.code ?
	       vd_fail(err, dm_problem.code, "device-mapper: %s", dm_problem.msg) : 0;
}

static void auto_task(struct dm_task **task)
{
	if (*task)
		dm.task_destroy(*task);
}
#define AUTO_TASK __attribute__((cleanup(auto_task)))

/* Run a task; its errno on failure. */
static int run(struct dm_task *task)
{
	if (dm.task_run(task))
		return 0;
	return dm.task_get_errno(task) ? -dm.task_get_errno(task) : -EIO;
}

int vd_dm_available(struct vdisk_error *err)
{
	AUTO_TASK struct dm_task *task = NULL;

	int r = dm_setup(err);

	if (r < 0)
		return r;
	task = dm.task_create(DM_DEVICE_VERSION);
	if (!task || run(task) < 0)
		return vd_fail(err, ENODEV, "no device-mapper here%s%s", last_log[0] ? ": " : "",
			       last_log);
	return 0;
}

/* Between vd_dm_hold() and vd_dm_settle(). */
static _Thread_local struct {
	bool on;
	uint32_t cookie;	/* 0: nothing to wait for yet */
} held;

void vd_dm_hold(void)
{
	held.on = true;
}

void vd_dm_settle(void)
{
	if (held.cookie)
		dm.udev_wait(held.cookie);
	held.on = false;
	held.cookie = 0;
}

/* Run a task that changes names, and wait for these. */
static int run_named(struct dm_task *task, bool wait)
{
	uint32_t cookie = wait && held.on ? held.cookie : 0;
	bool udev = dm.udev_get_sync_support();
	int r;

	if (udev && !dm.task_set_cookie(task, &cookie, 0))
		udev = false;
	r = run(task);
	if (udev && wait && held.on)
		held.cookie = cookie;
	else if (udev && wait)
		dm.udev_wait(cookie);
	else if (udev)
		dm.udev_complete(cookie);
	else
		dm.task_update_nodes();
	return r;
}

/* Is there a device of that name?  1, with its UUID, or 0. */
static int find_name(const char *name, char *uuid, size_t size)
{
	AUTO_TASK struct dm_task *task = dm.task_create(DM_DEVICE_INFO);
	struct dm_info info = { 0 };
	const char *found;

	if (!task || !dm.task_set_name(task, name) || run(task) < 0 ||
	    !dm.task_get_info(task, &info) || !info.exists)
		return 0;
	found = dm.task_get_uuid(task);
	snprintf(uuid, size, "%s", found ? found : "");
	return 1;
}

static int resume(const char *name, bool wait)
{
	AUTO_TASK struct dm_task *task = dm.task_create(DM_DEVICE_RESUME);

	if (!task || !dm.task_set_name(task, name))
		return -ENOMEM;
	return run_named(task, wait);
}

static int fail(struct vdisk_error *err, int r, const char *what, const char *name)
{
	return vd_fail(err, -r, "%s: cannot %s the device: %s%s%s%s", name, what, strerror(-r),
		       last_log[0] ? " (" : "", last_log, last_log[0] ? ")" : "");
}

int vd_dm_set(struct vd_dm_device *out, const char *name, const char *uuid,
	      const struct vd_dm_segment *segments, unsigned n, bool read_only, bool wait,
	      struct vdisk_error *err)
{
	AUTO_TASK struct dm_task *task = NULL, *query = NULL;
	struct dm_info info = { 0 };
	char old[sizeof(out->uuid)];
	int there, r = dm_setup(err);

	if (r < 0)
		return r;
	there = find_name(name, old, sizeof(old));
	if (there && uuid && strcmp(old, uuid) != 0)
		return vd_fail(err, EEXIST, "%s: a device of that name belongs to another disk", name);
	task = dm.task_create(there ? DM_DEVICE_RELOAD : DM_DEVICE_CREATE);
	if (!task || !dm.task_set_name(task, name) || (read_only && !dm.task_set_ro(task)) ||
	    (!there && uuid && !dm.task_set_uuid(task, uuid)))
		r = -EINVAL;
	for (unsigned i = 0; r == 0 && i < n; i++)
		if (!dm.task_add_target(task, segments[i].start, segments[i].length,
					segments[i].target, segments[i].params))
			r = -ENOMEM;
	if (r < 0)
		return fail(err, r, "make", name);
	dm.task_no_open_count(task);
	r = there ? run(task) : run_named(task, wait);
	if (r == 0 && there)
		r = resume(name, wait);
	if (r < 0)
		return fail(err, r, there ? "change" : "make", name);
	query = dm.task_create(DM_DEVICE_INFO);
	if (!query || !dm.task_set_name(query, name) || run(query) < 0 ||
	    !dm.task_get_info(query, &info))
		return fail(err, -EIO, "find", name);
	*out = (struct vd_dm_device) { .major = info.major, .minor = info.minor };
	snprintf(out->name, sizeof(out->name), "%s", name);
	snprintf(out->uuid, sizeof(out->uuid), "%s", uuid ? uuid : "");
	return 0;
}

/* -EBUSY, with who it is. */
static int busy(const char *name, struct vdisk_error *err)
{
	AUTO_TASK struct dm_task *task = dm.task_create(DM_DEVICE_INFO);
	struct stat st = { .st_mode = S_IFBLK };
	struct dm_info info = { 0 };
	char who[300] = "";

	if (task && dm.task_set_name(task, name) && run(task) == 0 &&
	    dm.task_get_info(task, &info)) {
		st.st_rdev = makedev(info.major, info.minor);
		if (!vd_in_use(&st, who, sizeof(who)))
			vd_opener_of(&st, who, sizeof(who));
	}
	return vd_fail(err, EBUSY, "%s: is in use%s%s", name, who[0] && who[0] != ' ' ? ": " : "",
		       who);
}

int vd_dm_remove(const char *name, unsigned flags, struct vdisk_error *err)
{
	unsigned pause = 5, waited = 0;		/* ms */
	int r = dm_setup(err);

	if (r < 0)
		return r;
	for (;; pause = MIN(2 * pause, 200u)) {
		AUTO_TASK struct dm_task *task = dm.task_create(DM_DEVICE_REMOVE);

		if (!task || !dm.task_set_name(task, name))
			return fail(err, -ENOMEM, "remove", name);
		if (flags & VD_DM_DEFERRED)
			dm.task_deferred_remove(task);
		r = run_named(task, !(flags & VD_DM_NOWAIT));
		if (r != -EBUSY || !(flags & VD_DM_RETRY) || waited >= BUSY_MS)
			break;
		usleep(1000 * pause);
		waited += pause;
	}
	if (r == -EBUSY)
		return busy(name, err);
	return r < 0 ? fail(err, r, "remove", name) : 0;
}

int vd_dm_each(int (*each)(void *arg, const struct vd_dm_device *d), void *arg,
	       struct vdisk_error *err)
{
	AUTO_TASK struct dm_task *task = NULL;
	struct dm_names *names;
	int r = dm_setup(err);

	if (r < 0)
		return r;
	task = dm.task_create(DM_DEVICE_LIST);
	if (!task || run(task) < 0 || !(names = dm.task_get_names(task)))
		return vd_fail(err, EIO, "cannot list the devices: %s", last_log);
	if (!names->dev)
		return 0;
	for (;;) {
		struct vd_dm_device d = { .major = major(names->dev), .minor = minor(names->dev) };

		snprintf(d.name, sizeof(d.name), "%s", names->name);
		if (!find_name(d.name, d.uuid, sizeof(d.uuid)))
			d.uuid[0] = '\0';
		r = each(arg, &d);
		if (r || !names->next)
			return r;
		names = (struct dm_names *)(void *)((char *)names + names->next);
	}
}

/* Ask for a device by its number. */
static struct dm_task *info_of(unsigned major, unsigned minor, struct dm_info *info)
{
	struct dm_task *task;

	if (dm_setup(NULL) < 0)
		return NULL;
	task = dm.task_create(DM_DEVICE_INFO);
	if (task && dm.task_set_major(task, (int)major) && dm.task_set_minor(task, (int)minor) &&
	    run(task) == 0 && dm.task_get_info(task, info) && info->exists)
		return task;
	if (task)
		dm.task_destroy(task);
	return NULL;
}

int vd_dm_find(struct vd_dm_device *out, unsigned major, unsigned minor)
{
	struct dm_info info = { 0 };
	AUTO_TASK struct dm_task *task = info_of(major, minor, &info);

	if (!task)
		return -ENOENT;
	*out = (struct vd_dm_device) { .major = major, .minor = minor };
	snprintf(out->name, sizeof(out->name), "%s", dm.task_get_name(task));
	snprintf(out->uuid, sizeof(out->uuid), "%s", dm.task_get_uuid(task));
	return 0;
}

int vd_dm_opened(unsigned major, unsigned minor)
{
	struct dm_info info = { 0 };
	AUTO_TASK struct dm_task *task = info_of(major, minor, &info);

	return task ? info.open_count : -ENOENT;
}

bool vd_dm_is_linear_on(const char *name, unsigned major, unsigned minor)
{
	AUTO_TASK struct dm_task *task = NULL;
	uint64_t start, length;
	unsigned a, b;
	char *type = NULL, *params = NULL;

	if (dm_setup(NULL) < 0)
		return false;
	task = dm.task_create(DM_DEVICE_TABLE);
	if (!task || !dm.task_set_name(task, name) || run(task) < 0)
		return false;
	/* it returns where the next one is */
	(void)dm.get_next_target(task, NULL, &start, &length, &type, &params);
	return type && !strcmp(type, "linear") && params && sscanf(params, "%u:%u", &a, &b) == 2 &&
	       a == major && b == minor;
}

bool vd_dm_lvm_names(const char *name, char **vg, char **lv)
{
	char *v = NULL, *l = NULL, *layer = NULL;
	struct dm_pool *pool;
	bool found;

	if (dm_setup(NULL) < 0)
		return false;
	pool = dm.pool_create("names", 256);
	if (!pool)
		return false;
	found = dm.split_lvm_name(pool, name, &v, &l, &layer) && *v && *l && !*layer;
	*vg = found ? strdup(v) : NULL;
	*lv = found ? strdup(l) : NULL;
	dm.pool_destroy(pool);
	return *vg && *lv;
}
