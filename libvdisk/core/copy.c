/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy.c - whole disks: copy, compare, commit, rebase
 *
 * Each of them is a walk.  A cursor cuts the disk into pieces under a lock,
 * with the help of the extent map: what needs no work (zeroes onto a disk that
 * reads as zeroes, what two disks share) is stepped over however long it is,
 * and the rest is handed out in windows of about a megabyte, aligned to the
 * units of both sides.  Workers take pieces and move their bytes, each in its
 * own buffer, so memory is bounded by their number and not by the disk.
 *
 * A window and its buffer stay in a processor's second-level cache; larger
 * ones are slower.  copy_file_range() is not used: inside one file system it
 * copies through the page cache at the speed of read and write (measured on
 * tmpfs and ext4), and would carry zeroes along that are cheap to find here.
 * Where blocks can be shared (FICLONERANGE), they are.
 *
 * Compressing: workers encode whole units in parallel, then store them in the
 * order of the pieces (tickets), so the same disk always makes the same image.
 */
#include <errno.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "core/engine.h"

#define WINDOW		(1u << 20)
#define GRAIN		4096u
#define MAX_WORKERS	16u	/* unless more are asked for */
#define MAX_BUFFERS	(48u << 20) /* all workers', likewise */
#define MAX_THREADS	64u

enum todo {
	NOTHING,
	MOVE,		/* read, look for zeroes, write; or whatever the walk is for */
	CLEAR,		/* make it read as zeroes */
};

struct piece {
	uint64_t off, len;
	enum todo todo;
	uint64_t ticket;
};

struct walk {
	struct vdisk *src, *dst;	/* borrowed; compare: both are read */
	/* Say what to do with [off, off+len), from its start; under the lock. */
	int (*step)(struct walk *w, struct piece *p);
	/* Do it; @buf has room for two windows. */
	int (*work)(struct walk *w, const struct piece *p, uint8_t *buf);
	unsigned workers;
	bool ordered;		/* workers wait for their turn */
	uint64_t window;
	uint64_t coded_extra;	/* a window of coded units can be that much longer */
	uint64_t grain;		/* zeroes are looked for in this unit */
	uint64_t sparse;	/* the shortest run of them that counts */
	bool dst_zero;		/* the target reads as zeroes before we write */
	bool full;		/* write zeroes too */
	bool best;		/* compress as well as possible, not as fast */
	int clone_fd;		/* the target's file, while it may share blocks; else -1 */

	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *progress_arg;

	pthread_mutex_t lock;	/* guards what follows */
	pthread_cond_t turned;
	struct vdisk_extent known[2]; /* the last answers about src and dst */
	uint64_t pos, end, done;
	uint64_t tickets, turn;
	uint64_t found;		/* compare: the first difference so far */
	int result;
};

/* ---- zeroes ---- */

static const uint8_t zeroes[GRAIN];

/* memcmp() with a block that stays in the first-level cache is as fast as it gets */
static bool is_zero(const uint8_t *p, size_t len)
{
	for (; len > GRAIN; p += GRAIN, len -= GRAIN) {
		if (memcmp(p, zeroes, GRAIN))
			return false;
	}
	return !memcmp(p, zeroes, len);
}

/* Length of the leading grains that are all zero (@want), or all not. */
static size_t same_length(const uint8_t *buf, size_t len, size_t grain, bool want)
{
	size_t n = 0;

	while (n < len && is_zero(buf + n, MIN(grain, len - n)) == want)
		n += MIN(grain, len - n);
	return n;
}

/* How far @buf is one thing: zeroes worth leaving out, or data. */
static size_t run_length(const struct walk *w, const uint8_t *buf, size_t len, bool *zero)
{
	size_t n = same_length(buf, len, w->grain, true);

	*zero = n >= MIN(w->sparse, len);
	if (*zero)
		return n;
	while (n < len) {
		size_t z;

		n += same_length(buf + n, len - n, w->grain, false);
		z = same_length(buf + n, len - n, w->grain, true);
		if (z >= w->sparse)
			break;
		n += z;
	}
	return n;
}

/* ---- the walk ---- */

static void fail(struct walk *w, int r)
{
	pthread_mutex_lock(&w->lock);
	if (w->result == 0)
		w->result = r;
	pthread_cond_broadcast(&w->turned);
	pthread_mutex_unlock(&w->lock);
}

/* The lock is held. */
static void count(struct walk *w, uint64_t bytes)
{
	w->done += bytes;
	if (w->progress && w->result == 0 &&
	    w->progress(w->progress_arg, w->done, w->end))
		w->result = -ECANCELED;
}

/* End of the window that @off is in. */
static uint64_t window_end(const struct walk *w, uint64_t off)
{
	uint64_t start = off - off % w->window;

	return w->window < w->end - start ? start + w->window : w->end;
}

static bool take(struct walk *w, struct piece *p)
{
	bool got = false;

	pthread_mutex_lock(&w->lock);
	while (!got && w->result == 0 && w->pos < w->end) {
		int r;

		*p = (struct piece) { .off = w->pos, .len = w->end - w->pos };
		r = w->step(w, p);
		if (r < 0) {
			w->result = r;
			break;
		}
		w->pos += p->len;
		got = p->todo != NOTHING;
		if (p->todo == MOVE)
			p->ticket = w->tickets++;
		else if (!got)
			count(w, p->len);
	}
	if (w->result) {
		pthread_cond_broadcast(&w->turned);
		got = false;
	}
	pthread_mutex_unlock(&w->lock);
	return got;
}

static void *work(void *arg)
{
	struct walk *w = arg;
	AUTO_FREE uint8_t *buf = NULL;
	struct piece p;

	if (posix_memalign((void **)&buf, GRAIN, (size_t)(2 * w->window + w->coded_extra))) {
		buf = NULL;
		fail(w, -ENOMEM);
		return NULL;
	}
	vd_is_worker = w->workers > 1;
	while (take(w, &p)) {
		int r = p.todo == CLEAR ? vdisk_zero(w->dst, p.off, p.len, VDISK_REQ_UNMAP) :
			w->work(w, &p, buf);

		if (r < 0) {
			fail(w, r);
			break;
		}
		pthread_mutex_lock(&w->lock);
		count(w, p.len);
		pthread_mutex_unlock(&w->lock);
	}
	vd_is_worker = false;	/* the first worker is the caller */
	return NULL;
}

static uint64_t unit_of(const struct vdisk *d)
{
	struct vdisk_limits l;

	vdisk_get_limits(d, &l);
	return l.unit;
}

static struct vdisk_copy_opts opts_normalise(const struct vdisk_copy_opts *opts)
{
	struct vdisk_copy_opts o = { 0 };

	if (opts)
		memcpy(&o, opts, MIN(opts->size, sizeof(o)));
	return o;
}

static unsigned default_workers(const struct walk *w)
{
	/* encoding: more than run at once, so that no processor is idle while a
	 * worker waits for its turn */
	unsigned n = w->ordered ? 2 * vd_cpus() : vd_cpus();

	n = MIN(n, MAX_WORKERS);
	return (unsigned)MIN((uint64_t)n, MAX_BUFFERS / (2 * w->window));
}

static int walk_run(struct walk *w, const struct vdisk_copy_opts *o)
{
	pthread_t threads[MAX_THREADS - 1];
	unsigned n = 0, want;

	w->progress = o->progress;
	w->progress_arg = o->progress_arg;
	w->window = MAX((uint64_t)WINDOW, unit_of(w->src));
	w->window = MAX(w->window, w->dst ? unit_of(w->dst) : 0);
	if (w->dst && w->dst->coded_only)
		w->coded_extra = w->window / w->dst->unit * (vd_coded_room(w->dst) - w->dst->unit);
	w->workers = o->workers ? MIN(o->workers, MAX_THREADS) : default_workers(w);
	want = w->workers - 1;
	w->found = UINT64_MAX;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->turned, NULL);
	/* fewer threads than asked for is no reason to fail */
	while (n < want && (uint64_t)n < w->end / w->window &&
	       pthread_create(&threads[n], NULL, work, w) == 0)
		n++;
	work(w);
	while (n > 0)
		pthread_join(threads[--n], NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->turned);
	return w->result;
}

/*
 * vdisk_map(), remembering the answer: to tell where a run of a file ends, some
 * file systems look at every page of it, and it is asked once a window.
 */
static int map_known(struct vdisk *d, struct vdisk_extent *known, uint64_t off, uint64_t len,
		     struct vdisk_extent *ext)
{
	uint64_t skip = off - known->offset;

	if (!known->length || off < known->offset || skip >= known->length) {
		int r = vdisk_map(d, off, len, known);

		if (r < 0)
			return r;
		skip = 0;
	}
	*ext = *known;
	ext->offset = off;
	ext->length = MIN(len, known->length - skip);
	ext->source_offset += ext->kind == VDISK_DATA ? skip : 0;
	return 0;
}

/* ---- copy ---- */

static bool reads_zero(const struct vdisk_extent *ext)
{
	return ext->kind == VDISK_ZERO || ext->kind == VDISK_HOLE;
}

/* Share the blocks of a plain run where the file system can. */
static bool try_clone(struct walk *w, struct piece *p, const struct vdisk_extent *ext)
{
	struct file_clone_range range = {
		.src_offset = ext->source_offset,
		.src_length = vd_align_down(ext->length, GRAIN),
		.dest_offset = p->off,
	};

	if (w->clone_fd < 0 || ext->kind != VDISK_DATA || !ext->source ||
	    vdisk_fd(ext->source) < 0 || !range.src_length)
		return false;
	range.src_fd = vdisk_fd(ext->source);
	if (ioctl(w->clone_fd, FICLONERANGE, &range) < 0) {
		w->clone_fd = -1;
		return false;
	}
	p->len = range.src_length;
	p->todo = NOTHING;
	return true;
}

static int copy_step(struct walk *w, struct piece *p)
{
	struct vdisk_extent ext = { 0 };
	uint64_t end;
	int r = map_known(w->src, &w->known[0], p->off, p->len, &ext);

	if (r < 0)
		return r;
	if (try_clone(w, p, &ext))
		return 0;
	p->todo = MOVE;
	end = window_end(w, p->off);
	if (reads_zero(&ext) && !w->full) {
		uint64_t zero_end = p->off + ext.length;

		if (zero_end < w->end)
			zero_end -= zero_end % w->grain;
		if (zero_end > p->off) {
			end = zero_end;
			p->todo = w->dst_zero ? NOTHING : CLEAR;
		}
	}
	p->len = end - p->off;
	return 0;
}

/* Only what the source's own layer says: its holes are left alone. */
static int copy_own_step(struct walk *w, struct piece *p)
{
	struct vdisk_extent ext = { 0 };
	int r = vdisk_map_own(w->src, p->off, p->len, &ext);

	if (r < 0)
		return r;
	p->len = ext.length;
	p->todo = ext.kind == VDISK_HOLE ? NOTHING : ext.kind == VDISK_ZERO ? CLEAR : MOVE;
	if (p->todo == MOVE)
		p->len = MIN(p->len, window_end(w, p->off) - p->off);
	return 0;
}

static int copy_work(struct walk *w, const struct piece *p, uint8_t *buf)
{
	size_t len = (size_t)p->len, n;
	int r = vdisk_read(w->src, buf, len, p->off);

	if (r < 0 || w->full)
		return r < 0 ? r : vdisk_write(w->dst, buf, len, p->off);
	for (size_t at = 0; at < len && r == 0; at += n) {
		bool zero;

		n = run_length(w, buf + at, len - at, &zero);
		if (!zero)
			r = vdisk_write(w->dst, buf + at, n, p->off + at);
		else if (!w->dst_zero)
			r = vdisk_zero(w->dst, p->off + at, n, VDISK_REQ_UNMAP);
	}
	return r;
}

static int wait_turn(struct walk *w, uint64_t ticket)
{
	int r;

	pthread_mutex_lock(&w->lock);
	while (w->turn != ticket && w->result == 0)
		pthread_cond_wait(&w->turned, &w->lock);
	r = w->result;
	pthread_mutex_unlock(&w->lock);
	return r;
}

static void next_turn(struct walk *w)
{
	pthread_mutex_lock(&w->lock);
	w->turn++;
	pthread_cond_broadcast(&w->turned);
	pthread_mutex_unlock(&w->lock);
}

/* Read a window and encode its units, unit n at its place in @coded. */
static int encode_window(struct walk *w, const struct piece *p, uint8_t *plain, uint8_t *coded,
			 ssize_t *coded_len)
{
	size_t unit = (size_t)w->dst->unit, len = (size_t)p->len;
	int r = vdisk_read(w->src, plain, len, p->off);

	if (r < 0)
		return r;
	if (len % unit)
		memset(plain + len, 0, unit - len % unit);
	for (size_t at = 0, i = 0; at < len; at += unit, i++)
		coded_len[i] = is_zero(plain + at, unit) ? 0 :
			       vd_encode_unit(w->dst, plain + at, coded + i * vd_coded_room(w->dst),
					      w->best);
	return 0;
}

static int store_unit(struct walk *w, uint64_t off, size_t len, const uint8_t *plain,
		      const uint8_t *coded, ssize_t coded_len)
{
	if (coded_len > 0)
		return vd_write_coded(w->dst, off, coded, (uint32_t)coded_len);
	if (coded_len == -ENOSPC)
		return vdisk_write(w->dst, plain, len, off);
	if (coded_len < 0)
		return (int)coded_len;
	return w->dst_zero ? 0 : vdisk_zero(w->dst, off, len, VDISK_REQ_UNMAP);
}

static int compress_work(struct walk *w, const struct piece *p, uint8_t *buf)
{
	size_t unit = (size_t)w->dst->unit, len = (size_t)p->len;
	uint8_t *coded = buf + w->window;
	AUTO_FREE ssize_t *coded_len = calloc(len / unit + 1, sizeof(*coded_len));
	int r;

	if (!coded_len)
		return -ENOMEM;
	r = encode_window(w, p, buf, coded, coded_len);
	if (r == 0)
		r = wait_turn(w, p->ticket);
	for (size_t at = 0, i = 0; at < len && r == 0; at += unit, i++)
		r = store_unit(w, p->off + at, MIN(unit, len - at), buf + at,
			       coded + i * vd_coded_room(w->dst), coded_len[i]);
	if (r == 0)
		next_turn(w);
	return r;
}

/* The file that a raw disk is, if that is all there is to it. */
static int plain_file(const struct vdisk *d)
{
	struct stat st;
	int fd = d->drv == &vd_raw && d->file ? vdisk_fd(d->file) : vdisk_fd(d);

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fd : -1;
}

static int copy_failed(int r, const struct vdisk *src, const struct vdisk *dst,
		       struct vdisk_error *err)
{
	if (r == -ECANCELED)
		return vd_fail(err, ECANCELED, "stopped");
	return vd_fail(err, -r, "copying %s to %s: %s", src->name, dst->name, strerror(-r));
}

int vdisk_copy(struct vdisk *dst, struct vdisk *src, const struct vdisk_copy_opts *opts,
	       struct vdisk_error *err)
{
	struct vdisk_copy_opts o = opts_normalise(opts);
	uint64_t unit = unit_of(dst);
	struct walk w = {
		.src = src, .dst = dst, .end = vdisk_size(src),
		.step = copy_step, .work = copy_work,
		.grain = MAX(unit, (uint64_t)GRAIN),
		.dst_zero = o.flags & VDISK_COPY_TARGET_ZERO,
		.full = o.flags & VDISK_COPY_FULL,
		.best = o.flags & VDISK_COPY_BEST,
		.clone_fd = -1,
	};
	int r;

	if (vdisk_size(dst) < vdisk_size(src))
		return vd_fail(err, ENOSPC, "%s is smaller than %s", dst->name, src->name);
	if (dst->coded_only)
		o.flags |= VDISK_COPY_COMPRESS;
	if (o.flags & VDISK_COPY_OWN_LAYER)
		w.step = copy_own_step;
	else if (!(o.flags & (VDISK_COPY_FULL | VDISK_COPY_COMPRESS)))
		w.clone_fd = plain_file(dst);
	if (o.flags & VDISK_COPY_COMPRESS) {
		if (!dst->unit || !dst->drv->codec || o.flags & VDISK_COPY_OWN_LAYER)
			return vd_fail(err, ENOTSUP, "%s: a %s image cannot be written compressed",
				       dst->name, vdisk_format(dst));
		w.work = compress_work;
		w.ordered = true;
		w.full = false;
		w.grain = dst->unit;
	}
	w.sparse = MAX(o.sparse, w.grain);
	r = walk_run(&w, &o);
	return r < 0 ? copy_failed(r, src, dst, err) : 0;
}

/* ---- compare ---- */

/* The same bytes of the same file need no comparison. */
static bool same_place(const struct vdisk_extent *a, const struct vdisk_extent *b)
{
	struct stat sa, sb;

	return a->kind == VDISK_DATA && b->kind == VDISK_DATA && a->source && b->source &&
	       a->source_offset == b->source_offset &&
	       vdisk_fd(a->source) >= 0 && fstat(vdisk_fd(a->source), &sa) == 0 &&
	       vdisk_fd(b->source) >= 0 && fstat(vdisk_fd(b->source), &sb) == 0 &&
	       S_ISREG(sa.st_mode) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* As map_known(), but the disk goes on with zeroes past its end. */
static int map_padded(struct vdisk *d, struct vdisk_extent *known, uint64_t off, uint64_t len,
		      struct vdisk_extent *ext)
{
	uint64_t size = d ? vdisk_size(d) : 0;

	if (off >= size) {
		*ext = (struct vdisk_extent) { .kind = VDISK_ZERO, .length = len };
		return 0;
	}
	return map_known(d, known, off, MIN(len, size - off), ext);
}

static int read_padded(struct vdisk *d, uint8_t *buf, size_t len, uint64_t off)
{
	uint64_t size = d ? vdisk_size(d) : 0;
	size_t n = off >= size ? 0 : (size_t)MIN((uint64_t)len, size - off);

	memset(buf + n, 0, len - n);
	return n ? vdisk_read(d, buf, n, off) : 0;
}

/* What may differ between @a and @b from p->off on? */
static int differ_step(struct walk *w, struct vdisk *a, struct vdisk *b, struct piece *p)
{
	struct vdisk_extent ea = { 0 }, eb = { 0 };
	int r = map_padded(a, &w->known[0], p->off, p->len, &ea);

	if (r == 0)
		r = map_padded(b, &w->known[1], p->off, p->len, &eb);
	if (r < 0)
		return r;
	if ((reads_zero(&ea) && reads_zero(&eb)) || same_place(&ea, &eb)) {
		p->len = MIN(ea.length, eb.length);
		return 0;
	}
	p->todo = MOVE;
	p->len = window_end(w, p->off) - p->off;
	return 0;
}

static int compare_step(struct walk *w, struct piece *p)
{
	if (w->found < p->off) {	/* pieces before it are out already */
		w->pos = w->end;
		p->len = 0;
		return 0;
	}
	return differ_step(w, w->src, w->dst, p);
}

static int compare_work(struct walk *w, const struct piece *p, uint8_t *buf)
{
	uint8_t *other = buf + w->window;
	size_t len = (size_t)p->len, at = 0;
	int r = read_padded(w->src, buf, len, p->off);

	if (r == 0)
		r = read_padded(w->dst, other, len, p->off);
	if (r < 0 || !memcmp(buf, other, len))
		return r;
	while (buf[at] == other[at])
		at++;
	pthread_mutex_lock(&w->lock);
	w->found = MIN(w->found, p->off + at);
	pthread_mutex_unlock(&w->lock);
	return 0;
}

int vdisk_compare(struct vdisk *a, struct vdisk *b, const struct vdisk_copy_opts *opts,
		  uint64_t *offset, struct vdisk_error *err)
{
	struct vdisk_copy_opts o = opts_normalise(opts);
	struct walk w = {
		.src = a, .dst = b, .end = MAX(vdisk_size(a), vdisk_size(b)),
		.step = compare_step, .work = compare_work, .clone_fd = -1,
	};
	int r = walk_run(&w, &o);

	if (r == -ECANCELED)
		return vd_fail(err, ECANCELED, "stopped");
	if (r < 0)
		return vd_fail(err, -r, "comparing %s with %s: %s", a->name, b->name, strerror(-r));
	if (w.found == UINT64_MAX)
		return 0;
	*offset = w.found;
	return 1;
}

/* ---- commit and rebase ---- */

int vdisk_open_backing(struct vdisk **out, struct vdisk *disk, const char *name,
		       const char *format, uint32_t flags, struct vdisk_error *err)
{
	struct vdisk_open_opts opts = { .size = sizeof(opts), .flags = flags, .refs = disk->refs };
	struct vd_open_ctx ctx = { .disk = disk, .opts = &opts };

	if (!name) {
		name = disk->backing_name;
		format = disk->backing_format;
	}
	if (!name)
		return vd_fail(err, ENOENT, "%s has no backing file", disk->name);
	return vd_open_ref(&ctx, out, name, format, flags & VDISK_OPEN_WRITE, err);
}

int vdisk_commit(struct vdisk *base, struct vdisk *disk, const struct vdisk_copy_opts *opts,
		 struct vdisk_error *err)
{
	struct vdisk_copy_opts o = opts_normalise(opts);
	int r;

	if (vdisk_size(base) < vdisk_size(disk)) {
		r = vdisk_resize(base, vdisk_size(disk), err);
		if (r < 0)
			return r;
	}
	o.size = sizeof(o);
	o.flags = VDISK_COPY_OWN_LAYER;
	r = vdisk_copy(base, disk, &o, err);
	if (r < 0)
		return r;
	r = vdisk_flush(base);
	return r < 0 ? vd_fail(err, -r, "%s: flush: %s", base->name, strerror(-r)) : 0;
}

/* w->src is the disk, w->dst its new backing. */
static int rebase_step(struct walk *w, struct piece *p)
{
	struct vdisk_extent ext = { 0 };
	int r = vdisk_map_own(w->src, p->off, p->len, &ext);

	if (r < 0)
		return r;
	p->len = ext.length;
	if (ext.kind != VDISK_HOLE)
		return 0;
	r = differ_step(w, w->src->backing, w->dst, p);
	p->len = MIN(p->len, ext.length);
	return r;
}

/*
 * Zeroes are stored too, as they hide data of the new backing.  A driver may
 * leave a hole a hole that reads as zeroes with the old one.
 */
static int store_zeroes(struct vdisk *d, const uint8_t *zero, size_t len, uint64_t off)
{
	struct vdisk_extent ext = { 0 };
	int r = vdisk_zero(d, off, len, 0);

	for (size_t at = 0; at < len && r == 0; at += ext.length) {
		r = vdisk_map_own(d, off + at, len - at, &ext);
		if (r == 0 && ext.kind == VDISK_HOLE)
			r = vdisk_write(d, zero, ext.length, off + at);
	}
	return r;
}

/* Store what the disk reads now, where its new backing would read otherwise. */
static int rebase_work(struct walk *w, const struct piece *p, uint8_t *buf)
{
	uint8_t *other = buf + w->window;
	size_t len = (size_t)p->len, n;
	int r = vdisk_read(w->src, buf, len, p->off);

	if (r == 0)
		r = read_padded(w->dst, other, len, p->off);
	for (size_t at = 0; at < len && r == 0; at += n) {
		n = MIN((size_t)w->grain, len - at);
		if (!memcmp(buf + at, other + at, n))
			continue;
		r = is_zero(buf + at, n) ? store_zeroes(w->src, buf + at, n, p->off + at) :
					   vdisk_write(w->src, buf + at, n, p->off + at);
	}
	return r;
}

int vdisk_rebase(struct vdisk *disk, struct vdisk *base, const char *name, const char *format,
		 const struct vdisk_copy_opts *opts, struct vdisk_error *err)
{
	struct vdisk_copy_opts o = opts_normalise(opts);
	struct walk w = {
		.src = disk, .dst = base, .end = vdisk_size(disk),
		.step = rebase_step, .work = rebase_work, .clone_fd = -1,
		.grain = MAX(disk->unit, (uint64_t)GRAIN),
	};
	int r = walk_run(&w, &o);

	if (r == 0)
		r = vdisk_flush(disk);	/* before the header stops naming the old one */
	if (r == -ECANCELED)
		return vd_fail(err, ECANCELED, "stopped; %s still has its old backing file",
			       disk->name);
	if (r < 0)
		return vd_fail(err, -r, "%s: rebase: %s", disk->name, strerror(-r));
	return vdisk_set_backing(disk, name, format, err);
}
