/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest_net.c - a guest's network cards
 *
 * The engine gets descriptors only.  "user" is passt on the other end of a
 * socket: the guest's connections are made by a process of ours, and nothing
 * needs a privilege.  A tap device has to be ours, or we have to be root; where
 * it is not, the message says what root would have to type.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "cli/guest.h"

static int tap_error(const char *dev, const char *bridge)
{
	const struct passwd *pw;

	cli_error("network: %s: %m", bridge ? bridge : dev);
	pw = getpwuid(geteuid());
	fprintf(stderr, "As root, once:\n");
	if (bridge && !if_nametoindex(bridge))
		fprintf(stderr, "    ip link add name %s type bridge\n"
			"    ip link set dev %s up\n", bridge, bridge);
	fprintf(stderr, "    ip tuntap add dev %s mode tap vnet_hdr user %s\n", dev,
		pw ? pw->pw_name : "USER");
	if (bridge)
		fprintf(stderr, "    ip link set dev %s master %s\n", dev, bridge);
	fprintf(stderr, "    ip link set dev %s up\n"
		"Then: --net tap:%s.  (--net user needs nothing of this, --net none is no card.)\n", dev,
		dev);
	return CLI_FAILED;
}

static int open_tap(int *out, struct ifreq *ifr)
{
	AUTO_CLOSE int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	ifr->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (fd < 0 || ioctl(fd, TUNSETIFF, ifr) < 0)
		return -errno;
	*out = STEAL_FD(fd);
	return 0;
}

static int tap(struct guest_nic *n, const char *dev)
{
	struct ifreq ifr = { 0 };

	if (!*dev || strlen(dev) >= IFNAMSIZ) {
		cli_error("network: '%s' is not a name of an interface", dev);
		return CLI_FAILED;
	}
	memcpy(ifr.ifr_name, dev, strlen(dev));
	errno = ENODEV;
	/* one that is made by accident would help nobody */
	if (!if_nametoindex(dev) || open_tap(&n->fd, &ifr) < 0)
		return tap_error(dev, NULL);
	return CLI_OK;
}

static int bridge(struct guest_nic *n, const char *br)
{
	struct ifreq ifr = { .ifr_name = "vdisk%d" }, add = { 0 };
	AUTO_CLOSE int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r;

	if (!*br || strlen(br) >= IFNAMSIZ) {
		cli_error("network: '%s' is not a name of a bridge", br);
		return CLI_FAILED;
	}
	memcpy(add.ifr_name, br, strlen(br));
	errno = ENODEV;
	r = if_nametoindex(br) ? open_tap(&n->fd, &ifr) : -ENODEV;
	if (!r) {
		add.ifr_ifindex = (int)if_nametoindex(ifr.ifr_name);
		r = ioctl(s, SIOCBRADDIF, &add) < 0 ? -errno : 0;
	}
	if (!r) {
		ifr.ifr_flags = IFF_UP;
		r = ioctl(s, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
	}
	errno = -r;
	return r ? tap_error("vdisk0", br) : CLI_OK;
}

/* passt ends when its socket does, or with us. */
static int user(struct guest_nic *n)
{
	char fd_text[16];
	int fds[2];
	pid_t pid;

	if (access("/usr/bin/passt", X_OK) < 0) {
		cli_error("network: user networking needs passt (Debian package passt)");
		return CLI_FAILED;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		cli_error("socketpair: %m");
		return CLI_FAILED;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		fcntl(fds[1], F_SETFD, 0);
		snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
		execl("/usr/bin/passt", "passt", "--foreground", "--quiet", "--fd", fd_text,
		      (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	if (pid < 0) {
		close(fds[0]);
		cli_error("fork: %m");
		return CLI_FAILED;
	}
	n->fd = fds[0];
	n->stream = true;
	return CLI_OK;
}

/*
 * Where nobody gave it one: a card has the same address in each of its guest's lives, and
 * another than the cards of other guests, which may be on the same wire.
 */
static void own_mac(char out[18], const char *guest, unsigned card)
{
	char host[256] = "", text[600];
	FILE *f = fopen("/etc/machine-id", "re");
	unsigned long h;
	int n;

	if (!f || !fgets(host, sizeof(host), f))
		gethostname(host, sizeof(host) - 1);
	if (f)
		fclose(f);
	n = snprintf(text, sizeof(text), "%s/%.255s/%u", host, guest ? guest : "", card);
	h = crc32(0, (const Bytef *)text, (uInt)n);
	snprintf(out, 18, "52:54:00:%02x:%02x:%02x", (unsigned)(h >> 16 & 255), (unsigned)(h >> 8 & 255),
		 (unsigned)(h & 255));
}

static int open_one(struct guest_nic *n, const char *guest, unsigned card)
{
	struct net_words w;

	n->fd = -1;
	if (words_net(n->option, &w) < 0)
		cli_usage("--net is " words_net_help ", not '%s'", n->option);
	own_mac(n->mac, guest, card);
	if (w.has_mac)
		snprintf(n->mac, sizeof(n->mac), "%02x:%02x:%02x:%02x:%02x:%02x", w.mac[0], w.mac[1],
			 w.mac[2], w.mac[3], w.mac[4], w.mac[5]);
	return w.kind == NET_USER ? user(n) : w.kind == NET_TAP ? tap(n, w.dev) : bridge(n, w.dev);
}

int guest_net_open(struct guest *g)
{
	for (unsigned i = 0; i < g->n_nics; i++)
		if (open_one(&g->nic[i], g->name, i) != CLI_OK)
			return CLI_FAILED;
	return CLI_OK;
}

void guest_net_close(struct guest *g)
{
	for (unsigned i = 0; i < g->n_nics; i++)
		if (g->nic[i].fd >= 0)
			close(g->nic[i].fd);
}
