/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * boot.c - what a disk boots: vdisk_boot_find(), vdisk_boot_list()
 *
 * The jailed child reads the guest's boot menu and the files of the chosen
 * entry, and sends them as messages; the parent collects the bytes of kernel
 * and initrd in memory files, checks everything it was told, and seals the
 * files.  Names inside the guest come back as text to show, never to be opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "guest/jail.h"
#include "guest/volumes.h"

enum { SECONDS = 60, COPY = 256 << 10 };
#define KERNEL_MAX	((uint64_t)256 << 20)
#define INITRD_MAX	((uint64_t)1 << 30)

/* Messages from the child. */
enum message {
	MSG_ENTRY,	/* struct vdisk_boot without descriptors */
	MSG_CHOSEN,	/* int32_t: index of the default */
	MSG_KERNEL,	/* bytes, appended */
	MSG_INITRD,
};

struct search {
	const struct vdisk_boot_opts *opts;
	bool list;
	const struct vd_lent_fs *lent;	/* borrowed */
	unsigned n_lent;
	/* the parent's */
	struct vdisk_boot *entries;	/* owned */
	unsigned n, cap;
	int chosen;
	int fd[2];			/* owned: kernel, initrd; -1 */
	uint64_t size[2];
};

/* ---- in the child ---- */

static void put(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text ? text : "");
}

/* Without the spaces around it that configurations leave; @cut: to what there is room for. */
static int put_cmdline(struct vdisk_boot *out, const char *text, bool cut, struct vdisk_error *err)
{
	size_t len = strlen(text);

	while (len && strchr(" \t", text[len - 1]))
		len--;
	for (; len && strchr(" \t", *text); text++)
		len--;
	if (cut)
		len = MIN(len, sizeof(out->cmdline) - 1);
	if (len >= sizeof(out->cmdline))
		return vd_fail(err, EFBIG, "boot: the command line has %zu bytes, more than the %zu "
			       "that a kernel takes", len, sizeof(out->cmdline) - 1);
	memcpy(out->cmdline, text, len);
	out->cmdline[len] = '\0';
	return 0;
}

static uint64_t size_of(const struct boot_env *env, const struct boot_file *f)
{
	uint64_t size;

	if (f->len)
		return f->len;
	return env->stat(env->arg, f->volume, f->path, &size) == 0 ? size : 0;
}

static int fill_entry(struct vdisk_boot *out, const struct boot_menu *menu, const struct boot_env *env,
		      const struct boot_entry *e, bool list, struct vdisk_error *err)
{
	unsigned i;

	memset(out, 0, sizeof(*out));
	out->kernel_fd = out->initrd_fd = -1;
	put(out->title, sizeof(out->title), e->title);
	put(out->id, sizeof(out->id), e->id);
	put(out->number, sizeof(out->number), e->number);
	put(out->source, sizeof(out->source), menu->source);
	if (e->kernel.path) {
		put(out->kernel, sizeof(out->kernel), e->kernel.path);
		out->kernel_size = size_of(env, &e->kernel);
	}
	for (i = 0; i < e->n_initrd; i++)
		out->initrd_size = vd_align_up(out->initrd_size, 4) +
			MIN(size_of(env, &e->initrd[i]), INITRD_MAX);
	if (e->n_initrd)
		put(out->initrd, sizeof(out->initrd), e->initrd[0].path);
	return put_cmdline(out, e->cmdline, list, err);
}

static int send_file(struct jail *jail, enum message type, struct guest_volumes *v,
		     const struct boot_file *f, uint64_t *total, uint64_t max,
		     struct vdisk_error *err)
{
	AUTO_FREE char *buf = malloc(COPY);
	struct vdisk_file *file = NULL;
	uint64_t off = 0, left = f->len ? f->len : UINT64_MAX;
	ssize_t n;
	int r;

	if (!buf)
		return vd_fail(err, ENOMEM, "out of memory");
	r = vdisk_file_open(&file, v->fs[f->volume], f->path, 0, 0, err);
	if (r < 0)
		return r;
	while ((n = vdisk_file_read(file, buf, (size_t)MIN(left, (uint64_t)COPY), f->off + off,
				    err)) > 0) {
		off += (uint64_t)n;
		left -= (uint64_t)n;
		*total += (uint64_t)n;
		if (*total > max) {
			n = vd_fail(err, EFBIG, "boot: %s: more than %llu MiB", f->path,
				    (unsigned long long)(max >> 20));
			break;
		}
		r = jail_send(jail, type, buf, (size_t)n);
		if (r < 0) {
			n = vd_fail(err, -r, "boot: %s: %s", f->path, strerror(-r));
			break;
		}
	}
	vdisk_file_close(file, NULL);
	return n < 0 ? (int)n : 0;
}

/* Kernel and initrds; the latter one behind the other, each from a multiple of 4. */
static int send_files(struct jail *jail, struct guest_volumes *v, const struct boot_entry *e,
		      struct vdisk_error *err)
{
	static const char zeroes[4];
	uint64_t total = 0;
	unsigned i;
	int r;

	r = send_file(jail, MSG_KERNEL, v, &e->kernel, &total, KERNEL_MAX, err);
	for (i = 0, total = 0; r == 0 && i < e->n_initrd; i++) {
		if (total % 4) {
			r = jail_send(jail, MSG_INITRD, zeroes, 4 - total % 4);
			total = vd_align_up(total, 4);
		}
		if (r == 0)
			r = send_file(jail, MSG_INITRD, v, &e->initrd[i], &total, INITRD_MAX, err);
	}
	return r;
}

static int send_entry(struct jail *jail, const struct boot_menu *menu, const struct boot_env *env,
		      const struct boot_entry *e, bool list, struct vdisk_error *err)
{
	struct vdisk_boot out;
	int r;

	r = fill_entry(&out, menu, env, e, list, err);
	if (r < 0)
		return r;
	r = jail_send(jail, MSG_ENTRY, &out, sizeof(out));
	return r < 0 ? vd_fail(err, -r, "boot: %s", strerror(-r)) : 0;
}

static int send_menu(struct jail *jail, const struct search *s, struct guest_volumes *v,
		     const struct boot_env *env, const struct boot_menu *menu,
		     struct vdisk_error *err)
{
	int32_t chosen = menu->chosen;
	unsigned i;
	int r = 0;

	if (!s->list) {
		r = send_entry(jail, menu, env, &menu->entries[chosen], false, err);
		if (r == 0 && !s->opts->no_files)
			r = send_files(jail, v, &menu->entries[chosen], err);
		return r;
	}
	for (i = 0; r == 0 && i < menu->n_entries; i++)
		r = send_entry(jail, menu, env, &menu->entries[i], true, err);
	return r == 0 ? jail_send(jail, MSG_CHOSEN, &chosen, sizeof(chosen)) : r;
}

static int inside(struct vdisk *disk, struct jail *jail, void *arg, struct vdisk_error *err)
{
	const struct search *s = arg;
	struct guest_volumes v = { 0 };
	struct boot_wish wish = { 0 };
	struct boot_menu menu;
	struct boot_env env;
	int r;

	r = guest_volumes_open(&v, disk, jail, err);
	if (r < 0)
		return r;
	if (v.n == 0)
		return vd_fail(err, ENOENT, "boot: %s: no file system that can be read%s%s",
			       vdisk_name(disk), v.trouble[0] ? "; " : "", v.trouble);
	env = guest_volumes_env(&v);
	if (!s->list)
		wish = (struct boot_wish) { s->opts->entry, s->opts->recovery };
	r = boot_menu_read(&menu, &env, &wish, err);
	/* nothing is freed: the child ends here */
	return r < 0 ? r : send_menu(jail, s, &v, &env, &menu, err);
}

/* ---- in the parent ---- */

static bool printable(const char *text)
{
	for (; *text; text++)
		if (*text < 0x20 || *text > 0x7e)
			return false;
	return true;
}

static int receive_entry(struct search *s, const void *data, size_t len, struct vdisk_error *err)
{
	struct vdisk_boot *e, *grown;

	if (len != sizeof(*e) || s->n >= (s->list ? BOOT_ENTRIES_MAX : 1))
		return -EPROTO;
	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 1;
		grown = reallocarray(s->entries, s->cap, sizeof(*grown));
		if (!grown)
			return vd_fail(err, ENOMEM, "out of memory");
		s->entries = grown;
	}
	e = &s->entries[s->n];
	memcpy(e, data, len);
	e->kernel_fd = e->initrd_fd = -1;
	boot_clean_text(e->title, sizeof(e->title));
	boot_clean_text(e->id, sizeof(e->id));
	boot_clean_text(e->number, sizeof(e->number));
	boot_clean_text(e->kernel, sizeof(e->kernel));
	boot_clean_text(e->initrd, sizeof(e->initrd));
	boot_clean_text(e->source, sizeof(e->source));
	if (!memchr(e->cmdline, '\0', sizeof(e->cmdline)))
		return -EPROTO;
	if (!printable(e->cmdline)) {
		if (!s->list)
			return vd_fail(err, EINVAL, "boot: the command line of '%s' has characters "
				       "that cannot be printed", e->title);
		boot_clean_text(e->cmdline, sizeof(e->cmdline));
	}
	s->n++;
	return 0;
}

static int receive_bytes(struct search *s, unsigned which, const void *data, size_t len,
			 struct vdisk_error *err)
{
	const char *name = which ? "vdisk-initrd" : "vdisk-kernel", *p = data;
	ssize_t n;

	if (s->list || s->opts->no_files)
		return -EPROTO;
	s->size[which] += len;
	if (s->size[which] > (which ? INITRD_MAX : KERNEL_MAX))
		return -EPROTO;
	if (s->fd[which] < 0)
		s->fd[which] = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	while (s->fd[which] >= 0 && len > 0) {
		n = write(s->fd[which], p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		p += n;
		len -= (size_t)n;
	}
	return len ? vd_fail(err, errno, "boot: memory for %s: %s", name, strerror(errno)) : 0;
}

static int receive(void *arg, uint32_t type, const void *data, size_t len,
		   struct vdisk_error *err)
{
	struct search *s = arg;
	int32_t chosen;

	switch (type) {
	case MSG_ENTRY:
		return receive_entry(s, data, len, err);
	case MSG_CHOSEN:
		if (len != sizeof(chosen))
			return -EPROTO;
		memcpy(&chosen, data, len);
		if (chosen < -1 || chosen >= (int32_t)s->n)
			return -EPROTO;
		s->chosen = chosen;
		return 0;
	case MSG_KERNEL:
		return receive_bytes(s, 0, data, len, err);
	case MSG_INITRD:
		return receive_bytes(s, 1, data, len, err);
	default:
		return -EPROTO;
	}
}

static int search(struct search *s, struct vdisk *disk, struct vdisk_error *err)
{
	const struct jail_opts opts = {
		.inside = inside, .receive = receive, .arg = s, .seconds = SECONDS, .what = "boot",
		.lent = s->lent, .n_lent = s->n_lent,
	};
	int r;

	s->fd[0] = s->fd[1] = s->chosen = -1;
	r = jail_run(disk, &opts, err);
	if (r == 0 && !s->list && (s->n != 1 || (s->fd[0] < 0 && !s->opts->no_files)))
		r = vd_fail(err, EINVAL, "boot: %s: the kernel is empty", vdisk_name(disk));
	if (r < 0) {
		if (s->fd[0] >= 0)
			close(s->fd[0]);
		if (s->fd[1] >= 0)
			close(s->fd[1]);
		free(s->entries);
	}
	return r;
}

static int seal(int fd, struct vdisk_error *err)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

	if (fd >= 0 && (lseek(fd, 0, SEEK_SET) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0))
		return vd_fail(err, errno, "boot: sealing a memory file: %s", strerror(errno));
	return 0;
}

static int append(struct vdisk_boot *boot, const char *words, struct vdisk_error *err)
{
	size_t have = strlen(boot->cmdline);

	if (!words || !*words)
		return 0;
	if (!printable(words))
		return vd_fail(err, EINVAL, "boot: the words to append cannot be printed");
	if (strlen(words) + have + 2 > sizeof(boot->cmdline))
		return vd_fail(err, EFBIG, "boot: the command line would have more than %zu bytes",
			       sizeof(boot->cmdline) - 1);
	snprintf(boot->cmdline + have, sizeof(boot->cmdline) - have, "%s%s", have ? " " : "", words);
	return 0;
}

/*
 * For a system that does not come up: no splash over the messages and, where
 * the menu had no entry for it, a shell for one user.
 */
static int ask_for_recovery(struct vdisk_boot *boot, struct vdisk_error *err)
{
	static const char *const hiding[] = { "quiet", "splash", "rhgb" };
	char *to = boot->cmdline, *p = boot->cmdline;
	bool drop;

	while (*p) {
		size_t len = strcspn(p, " ");

		drop = false;
		for (size_t i = 0; i < ARRAY_SIZE(hiding); i++)
			drop |= len == strlen(hiding[i]) && !strncmp(p, hiding[i], len);
		len += strspn(p + len, " ");
		if (!drop) {
			memmove(to, p, len);
			to += len;
		}
		p += len;
	}
	while (to > boot->cmdline && to[-1] == ' ')
		to--;
	*to = '\0';
	return boot_is_recovery(boot->cmdline) ? 0 : append(boot, "single", err);
}

int vdisk_boot_find(struct vdisk_boot *out, struct vdisk *disk, const struct vdisk_boot_opts *opts,
		    struct vdisk_error *err)
{
	struct vdisk_boot_opts o = { 0 };
	struct search s = { .opts = &o };
	struct vdisk_boot boot;
	int r;

	if (opts)
		memcpy(&o, opts, MIN(opts->size, sizeof(o)));
	r = search(&s, disk, err);
	if (r < 0)
		return r;
	boot = s.entries[0];
	free(s.entries);
	boot.kernel_fd = s.fd[0];
	boot.initrd_fd = s.fd[1];
	if (!o.no_files) {
		boot.kernel_size = s.size[0];
		boot.initrd_size = s.size[1];
	}
	r = seal(boot.kernel_fd, err);
	if (r == 0)
		r = seal(boot.initrd_fd, err);
	if (r == 0 && o.recovery)
		r = ask_for_recovery(&boot, err);
	if (r == 0)
		r = append(&boot, o.append, err);
	if (r < 0)
		vdisk_boot_clear(&boot);
	else
		*out = boot;
	return r;
}

int vd_boot_list(struct vdisk *disk, const struct vd_lent_fs *lent, unsigned n_lent,
		 struct vdisk_boot **out, int *chosen, struct vdisk_error *err)
{
	struct search s = { .list = true, .lent = lent, .n_lent = n_lent };
	int r;

	r = search(&s, disk, err);
	if (r < 0)
		return r;
	*out = s.entries;
	if (chosen)
		*chosen = s.chosen;
	return (int)s.n;
}

int vdisk_boot_list(struct vdisk *disk, struct vdisk_boot **out, int *chosen,
		    struct vdisk_error *err)
{
	return vd_boot_list(disk, NULL, 0, out, chosen, err);
}

void vdisk_boot_clear(struct vdisk_boot *boot)
{
	if (boot->kernel_fd >= 0)
		close(boot->kernel_fd);
	if (boot->initrd_fd >= 0)
		close(boot->initrd_fd);
	boot->kernel_fd = boot->initrd_fd = -1;
}
