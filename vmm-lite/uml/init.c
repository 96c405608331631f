/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init.c - the first process of a User-Mode Linux guest
 *
 * Static, alone in its initramfs but for kernel modules and the file /conf that
 * the engine has written, which has looked at the disks already:
 *
 *	module FILE			load it; in this order
 *	wait DEVICE			until it is there
 *	volume NAME UUID		a logical volume,
 *	target START LENGTH DEVICE OFFSET  ... of these pieces, in sectors
 *	root DEVICE			the root file system
 *	ro				read-only, for now
 *	init FILE			what is started there
 *	agent DEVICE			leave a process behind that obeys this terminal
 *
 * The agent does what only somebody inside can: a line "bind N" or "unbind N" gives
 * device N of UML's vhost-user driver to that driver or takes it away, "poweroff" has
 * the system power off.  It says "ready" first, "unbound N" when a device is taken away,
 * and "failed N ERRNO".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define WAIT_MS		10000u
#define TABLE_BYTES	(1u << 20)
#define QUIET_LEVEL	2	/* kernel.c's */

static struct {
	char root[512], init[512], agent[512];
	bool ro;
	/* the volume that is being put together */
	struct dm_ioctl *dm;
	uint32_t fill;
} boot = { .init = "/sbin/init" };

__attribute__((noreturn)) static void stop(const char *what, const char *name)
{
	fprintf(stderr, "vdisk: %s %s: %s\n", what, name, strerror(errno));
	sync();
	_exit(1);	/* a panic: that is no power-off */
}

static void load_module(const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		stop("kernel module", file);
	close(fd);
}

static void wait_device(const char *device)
{
	for (unsigned i = 0; i < WAIT_MS / 10; i++) {
		if (access(device, F_OK) == 0)
			return;
		usleep(10000);
	}
	errno = ENODEV;
	stop("disk", device);
}

/* ---- logical volumes, by the device mapper's ioctls ---- */

static int control(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		stop("device mapper", "/dev/mapper/control");
	return fd;
}

static void head(struct dm_ioctl *dm, const char *name)
{
	dm->version[0] = DM_VERSION_MAJOR;
	dm->data_size = TABLE_BYTES;
	dm->data_start = sizeof(*dm);
	snprintf(dm->name, sizeof(dm->name), "%s", name);
}

/* The volume that has been described: load its table, let it run, name its node. */
static void finish_volume(void)
{
	struct dm_ioctl *dm = boot.dm;
	char name[DM_NAME_LEN], node[DM_NAME_LEN + 16], path[DM_NAME_LEN + 32];

	if (!dm)
		return;
	memcpy(name, dm->name, sizeof(name));
	if (ioctl(control(), DM_TABLE_LOAD, dm) < 0)
		stop("logical volume", name);
	memset(dm, 0, sizeof(*dm));
	head(dm, name);
	if (ioctl(control(), DM_DEV_SUSPEND, dm) < 0)	/* with no flag: resume */
		stop("logical volume", name);
	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	snprintf(node, sizeof(node), "../dm-%u", (unsigned)(dm->dev & 0xff) |
		 (unsigned)(dm->dev >> 12 & 0xfff00));
	if (symlink(node, path) < 0 && errno != EEXIST)
		stop("logical volume", path);
	free(dm);
	boot.dm = NULL;
}

static void begin_volume(const char *name, const char *uuid)
{
	boot.dm = calloc(1, TABLE_BYTES);
	if (!boot.dm)
		stop("memory for", name);
	head(boot.dm, name);
	snprintf(boot.dm->uuid, sizeof(boot.dm->uuid), "%s", uuid);
	if (ioctl(control(), DM_DEV_CREATE, boot.dm) < 0)
		stop("logical volume", name);
	memset(boot.dm, 0, sizeof(*boot.dm));
	head(boot.dm, name);
	boot.fill = sizeof(*boot.dm);
}

static void add_target(unsigned long long start, unsigned long long length, const char *device,
		       unsigned long long offset)
{
	struct dm_target_spec spec = { .sector_start = start, .length = length };
	char text[256];
	int n = snprintf(text, sizeof(text), "%s %llu", device, offset) + 1;

	n = (n + 7) & ~7;
	spec.next = (uint32_t)sizeof(spec) + (uint32_t)n;
	memcpy(spec.target_type, "linear", 7);
	if (!boot.dm || boot.fill + spec.next > TABLE_BYTES) {
		errno = E2BIG;
		stop("logical volume on", device);
	}
	memcpy((char *)boot.dm + boot.fill, &spec, sizeof(spec));
	memcpy((char *)boot.dm + boot.fill + sizeof(spec), text, strlen(text) + 1);
	boot.fill += spec.next;
	boot.dm->target_count++;
}

/* ---- the root ---- */

/* Whatever it is: try what this kernel knows. */
static bool mount_root(unsigned long flags, const char *data)
{
	char line[128];
	FILE *f = fopen("/proc/filesystems", "re");
	bool done = false;

	while (f && !done && fgets(line, sizeof(line), f)) {
		char type[64];

		if (strncmp(line, "nodev", 5) && sscanf(line, " %63s", type) == 1)
			done = mount(boot.root, "/root", type, flags, data) == 0;
	}
	if (f)
		fclose(f);
	return done;
}

static void enter_root(void)
{
	static const char *const moved[] = { "/dev", "/proc", "/sys" };
	char to[64];

	for (unsigned i = 0; i < 3; i++) {
		snprintf(to, sizeof(to), "/root%s", moved[i]);
		if (mount(moved[i], to, NULL, MS_MOVE, NULL) < 0)
			umount2(moved[i], MNT_DETACH);	/* no such directory there */
	}
	if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		stop("root", boot.root);
}

/* ---- the agent ---- */

static struct {
	int tty;
	int driver;	/* the directory of UML's driver */
	int proc;	/* ours, which moves to the root with the others */
} agent;

static void bind_device(const char *file, unsigned n)
{
	int fd = openat(agent.driver, file, O_WRONLY | O_CLOEXEC);
	char name[32];
	size_t len = (size_t)snprintf(name, sizeof(name), "virtio-uml.%u", n);

	if (fd < 0 || write(fd, name, len) != (ssize_t)len)
		dprintf(agent.tty, "failed %u %d\n", n, errno);
	else if (*file == 'u')
		dprintf(agent.tty, "unbound %u\n", n);
	if (fd >= 0)
		close(fd);
}

/* In the root of the first process, as somebody there would type it. */
static void power_off_once(void)
{
	static const char *const places[] = { "/sbin", "/usr/sbin", "/bin", "/usr/bin" };
	int root = openat(agent.proc, "1/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char path[64];

	if (root < 0 || fchdir(root) < 0 || chroot(".") < 0 || chdir("/") < 0)
		_exit(1);
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s/poweroff", places[i]);
		execl(path, "poweroff", (char *)NULL);
	}
	_exit(1);
}

/* A system that is just coming up may not listen yet. */
static void power_off(void)
{
	int status = 1;

	for (unsigned i = 0; i < 20 && status; i++) {
		pid_t pid = fork();

		if (pid == 0)
			power_off_once();
		if (pid < 0 || waitpid(pid, &status, 0) < 0)
			return;
		if (status)
			sleep(1);
	}
}

static void serve_agent(void)
{
	FILE *f = fdopen(agent.tty, "r");
	char line[64];
	unsigned n;

	dprintf(agent.tty, "ready\n");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "bind %u", &n) == 1)
			bind_device("bind", n);
		else if (sscanf(line, "unbind %u", &n) == 1)
			bind_device("unbind", n);
		else if (!strncmp(line, "poweroff", 8))
			power_off();
	}
	_exit(0);
}

/* Without it the guest runs as well, but nobody can ask it anything. */
static void start_agent(void)
{
	struct termios t;
	pid_t pid;

	agent.tty = open(boot.agent, O_RDWR | O_NOCTTY | O_CLOEXEC);
	agent.driver = open("/sys/bus/platform/drivers/virtio-uml", O_PATH | O_DIRECTORY | O_CLOEXEC);
	agent.proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (agent.tty < 0 || agent.driver < 0 || agent.proc < 0 || tcgetattr(agent.tty, &t) < 0)
		return;
	cfmakeraw(&t);
	tcsetattr(agent.tty, TCSANOW, &t);
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		setsid();
		prctl(PR_SET_NAME, "vdisk-agent");
		for (int i = 0; null >= 0 && i < 3; i++)
			dup2(null, i);
		serve_agent();
	}
	close(agent.tty);
	close(agent.driver);
	close(agent.proc);
}

static void obey(char *line)
{
	unsigned long long start, length, offset;
	char a[512], name[DM_NAME_LEN], uuid[DM_NAME_LEN];

	if (sscanf(line, "target %llu %llu %511s %llu", &start, &length, a, &offset) == 4) {
		add_target(start, length, a, offset);
		return;
	}
	finish_volume();
	if (sscanf(line, "module %511s", a) == 1)
		load_module(a);
	else if (sscanf(line, "wait %511s", a) == 1)
		wait_device(a);
	else if (sscanf(line, "volume %127s %127s", name, uuid) == 2)
		begin_volume(name, uuid);
	else if (sscanf(line, "root %511s", a) == 1)
		memcpy(boot.root, a, sizeof(a));
	else if (sscanf(line, "init %511s", a) == 1)
		memcpy(boot.init, a, sizeof(a));
	else if (sscanf(line, "agent %511s", a) == 1)
		memcpy(boot.agent, a, sizeof(a));
	else if (!strncmp(line, "ro", 2))
		boot.ro = true;
}

/* What the kernel says on the console: errors, as it has said nothing of them so far
 * (kernel.c starts it so), unless somebody wants to hear more. */
static void let_kernel_speak(void)
{
	int fd = open("/proc/sys/kernel/printk", O_RDWR | O_CLOEXEC), level = 0;
	char now[64] = "";

	if (fd >= 0 && read(fd, now, sizeof(now) - 1) > 0 && sscanf(now, "%d", &level) == 1 &&
	    level == QUIET_LEVEL)
		dprintf(fd, "4\n");
	if (fd >= 0)
		close(fd);
}

static bool try_root(void)
{
	/* a disk that cannot be written may have a journal that cannot be replayed */
	return mount_root(boot.ro ? MS_RDONLY : 0, NULL) ||
	       (boot.ro && (mount_root(MS_RDONLY, "noload") || mount_root(MS_RDONLY, "norecovery")));
}

int main(int argc, char **argv)
{
	static const char *const others[] = { "/sbin/init", "/lib/systemd/systemd", "/bin/init",
					      "/bin/sh" };
	char line[1024];
	FILE *conf;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mkdir("/dev/mapper", 0755);
	conf = fopen("/conf", "re");
	if (!conf)
		stop("configuration", "/conf");
	while (fgets(line, sizeof(line), conf))
		obey(line);
	finish_volume();
	fclose(conf);
	wait_device(boot.root);
	if (!try_root()) {
		/* once more, for the kernel to say why */
		let_kernel_speak();
		if (!try_root())
			stop("cannot mount the root", boot.root);
	}
	let_kernel_speak();
	if (*boot.agent)
		start_agent();
	enter_root();
	/* with the words of the kernel's command line that are not the kernel's: "single" */
	if (argc < 1)
		argv = (char *[]) { NULL, NULL };
	argv[0] = boot.init;
	execv(argv[0], argv);
	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		argv[0] = (char *)(uintptr_t)others[i];
		execv(argv[0], argv);
	}
	stop("no init in the root: not even", "/bin/sh");
}
