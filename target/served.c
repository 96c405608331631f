/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* served.c - see served.h */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "core/compiler.h"
#include "target/log.h"
#include "target/served.h"
#include "target/service.h"
#include "target/unit.h"

struct served_portal {
	LIST_ENTRY(served_portal) link;
	struct iscsi_portal *portal;
	char *address;		/* owned: as the configuration has it */
};

struct served_target {
	LIST_ENTRY(served_target) link;
	const struct config_target *config;	/* borrowed, of the one in force */
	struct scsi_target *scsi;		/* owned */
	struct iscsi_target *iscsi;		/* the server's */
	char *state_dir;			/* owned, of one that leaves: where its units' files go, or NULL */
};

/* What opening a LUN's disk gave. */
struct opened {
	struct vdisk *disk;	/* owned, or NULL */
	enum scsi_unit_type type;
	bool grown;		/* it is served, and has another size now */
};

struct plan {
	struct service_job job;
	struct served *served;
	const struct config *old;	/* borrowed, or NULL */
	struct config *config;		/* owned until it is in force */
	struct opened *opened;		/* owned: of all LUNs, one after the other; no disk:
					 * stays as it is, or is opened in the second stage */
	unsigned n_opened;
	struct iscsi_portal **portals;	/* owned; of all portals; NULL: stays as it is */
	int error;
	struct vdisk_error err;
};

/* A unit on its way out: emptied, flushed, then its disk closed. */
struct removal {
	struct service_job job;
	struct served *served;
	struct scsi_tmf tmf;
	struct scsi_nexus nexus;	/* whose reset it is */
	struct scsi_unit *unit;
	struct vdisk *disk;
	char *state_file;		/* owned: to be removed, or NULL */
};

static void no_abort(struct scsi_task *task UNUSED)
{
	/* it has no tasks */
}

static const struct scsi_nexus_ops removal_ops = { .abort = no_abort };

/* ---- what is the same in two configurations ---- */

static const struct config_target *find_target(const struct config *c, const char *name)
{
	for (unsigned i = 0; c && i < c->n_targets; i++)
		if (!strcasecmp(c->targets[i].name, name))
			return &c->targets[i];
	return NULL;
}

static const struct config_lun *find_lun(const struct config_target *t, unsigned lun)
{
	for (unsigned i = 0; t && i < t->n_luns; i++)
		if (t->luns[i].lun == lun)
			return &t->luns[i];
	return NULL;
}

static bool stays(const struct config *old, const char *target, const struct config_lun *l)
{
	const struct config_lun *was = find_lun(find_target(old, target), l->lun);

	return was && config_lun_same(was, l);
}

/* Is the disk served now, in whatever way?  Then it cannot be opened before that ends. */
static bool in_use(const struct config *old, const char *disk)
{
	for (unsigned i = 0; old && i < old->n_targets; i++)
		for (unsigned k = 0; k < old->targets[i].n_luns; k++)
			if (!strcmp(old->targets[i].luns[k].disk, disk))
				return true;
	return false;
}

static unsigned count_luns(const struct config *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n_targets; i++)
		n += c->targets[i].n_luns;
	return n;
}

/* ---- preparing ---- */

static int grow(struct vdisk *disk, const struct config_lun *l, struct vdisk_error *err)
{
	if (l->size < vdisk_size(disk))
		return fail(err, EINVAL, "%s: has %llu bytes, more than 'size' says", l->disk,
			    (unsigned long long)vdisk_size(disk));
	return l->size == vdisk_size(disk) ? 0 : vdisk_resize(disk, l->size, err);
}

static int open_lun(struct opened *out, const struct config *c, const struct config_lun *l,
		    struct vdisk_error *err)
{
	struct vdisk_open_opts opts = config_lun_opts(l);
	struct vdisk_error why = { 0 };
	int r = vdisk_open(&out->disk, l->disk, &opts, &why);

	if (r == 0 && l->size)
		r = grow(out->disk, l, &why);
	if (r < 0) {
		if (out->disk)
			vdisk_close(out->disk, NULL);
		out->disk = NULL;
		return fail(err, -r, "%s:%u: %.400s", c->path, l->line, why.msg);
	}
	out->type = unit_is_cdrom(l->disk, out->disk) ? SCSI_CDROM : SCSI_DISK;
	return 0;
}

/* First stage: what can be opened while everything is still served; second: the rest. */
static int open_disks(struct plan *plan, bool second, struct vdisk_error *err)
{
	const struct config *c = plan->config ? plan->config : plan->served->config;
	unsigned at = 0;
	int result = 0;

	for (unsigned i = 0; i < c->n_targets; i++) {
		const struct config_target *t = &c->targets[i];

		for (unsigned k = 0; k < t->n_luns; k++, at++) {
			const struct config_lun *l = &t->luns[k];
			int r;

			if (plan->opened[at].disk || stays(plan->old, t->name, l) ||
			    in_use(plan->old, l->disk) != second)
				continue;
			r = open_lun(&plan->opened[at], c, l, err);
			if (r < 0 && !second)
				return r;
			if (r < 0)
				log_warnx("%s", err->msg);	/* the others are served */
			if (r < 0)
				result = r;
		}
	}
	return result;
}

static void close_disks(struct plan *plan)
{
	for (unsigned i = 0; i < plan->n_opened; i++)
		if (plan->opened[i].disk)
			vdisk_close(plan->opened[i].disk, NULL);
}

/* Everything of the first stage that may block. */
static int prepare(struct plan *plan, struct vdisk_error *err)
{
	plan->opened = calloc(count_luns(plan->config) + 1, sizeof(*plan->opened));
	plan->portals = calloc(plan->config->n_portals, sizeof(*plan->portals));
	if (!plan->opened || !plan->portals)
		return fail(err, ENOMEM, "out of memory");
	plan->n_opened = count_luns(plan->config);
	return open_disks(plan, false, err);
}

static void plan_free(struct plan *plan)
{
	close_disks(plan);
	config_free(plan->config);
	free(plan->opened);
	free(plan->portals);
	free(plan);
}

/* ---- portals ---- */

static struct served_portal *find_portal(struct served *s, const char *address)
{
	struct served_portal *p;

	LIST_FOREACH(p, &s->portals, link)
		if (!strcmp(p->address, address))
			return p;
	return NULL;
}

/* Listen on the new ones; the old ones are not touched so far. */
static int open_portals(struct plan *plan, struct vdisk_error *err)
{
	const struct config *c = plan->config;
	struct served *s = plan->served;

	for (unsigned i = 0; i < c->n_portals; i++) {
		struct vdisk_error why = { 0 };

		if (find_portal(s, c->portals[i].address))
			continue;
		plan->portals[i] = iscsi_portal_add(&s->server, c->portals[i].address, &why);
		if (plan->portals[i])
			continue;
		while (i--)
			if (plan->portals[i])
				iscsi_portal_close(plan->portals[i]);
		return fail(err, EADDRNOTAVAIL, "%s:%u: %.400s", c->path, c->portals[i + 1].line, why.msg);
	}
	return 0;
}

static void close_portal(struct served_portal *p)
{
	LIST_REMOVE(p, link);
	iscsi_portal_close(p->portal);
	free(p->address);
	free(p);
}

static bool has_portal(const struct config *c, const char *address)
{
	for (unsigned i = 0; i < c->n_portals; i++)
		if (!strcmp(c->portals[i].address, address))
			return true;
	return false;
}

static void apply_portals(struct plan *plan)
{
	struct served *s = plan->served;
	struct served_portal *p, *next;

	for (p = LIST_FIRST(&s->portals); p; p = next) {
		next = LIST_NEXT(p, link);
		if (!has_portal(s->config, p->address))
			close_portal(p);
	}
	for (unsigned i = 0; i < s->config->n_portals; i++) {
		const struct config_portal *c = &s->config->portals[i];

		p = find_portal(s, c->address);
		if (!p) {
			p = calloc(1, sizeof(*p));
			if (p)
				p->address = strdup(c->address);
			if (!p || !p->address) {
				iscsi_portal_close(plan->portals[i]);
				free(p);
				log_warnx("portal %s: out of memory", c->address);
				continue;
			}
			p->portal = plan->portals[i];
			LIST_INSERT_HEAD(&s->portals, p, link);
			log_info("listening on %s", p->portal->address);
		}
		p->portal->group = c->group;
		free(p->portal->advertise);
		p->portal->advertise = c->advertise ? strdup(c->advertise) : NULL;
	}
}

/* ---- units that go ---- */

/* The reservations of a unit that was taken away must not be there for another one. */
static void forget(const char *state_file)
{
	if (unlink(state_file) < 0 && errno != ENOENT)
		log_warnx("%s: cannot be removed: %s", state_file, strerror(errno));
}

static void removal_closed(struct service_job *job)
{
	struct removal *r = container_of(job, struct removal, job);

	r->served->removals--;
	free(r->state_file);
	free(r);
}

static void removal_close(struct service_job *job)
{
	struct removal *r = container_of(job, struct removal, job);
	struct vdisk_error err = { 0 };

	if (vdisk_close(r->disk, &err) < 0)
		log_warnx("%s", err.msg);
	if (r->state_file)
		forget(r->state_file);
}

static void removal_flushed(struct service_job *job)
{
	struct removal *r = container_of(job, struct removal, job);

	scsi_nexus_fini(&r->nexus);
	r->disk = scsi_unit_remove(r->unit);
	r->job.run = removal_close;
	r->job.done = removal_closed;
	service_job_start(&r->job);
}

static void removal_flush(struct service_job *job)
{
	struct removal *r = container_of(job, struct removal, job);
	int error = r->unit->read_only ? 0 : vdisk_flush(r->unit->disk);

	if (error < 0)
		log_warnx("%s: flush: %s", vdisk_name(r->unit->disk), strerror(-error));
}

static void removal_empty(struct scsi_tmf *tmf)
{
	struct removal *r = container_of(tmf, struct removal, tmf);

	r->job.run = removal_flush;
	r->job.done = removal_flushed;
	service_job_start(&r->job);
}

/* @state_dir: it does not come back, and its reservations there go too; or NULL. */
static void remove_unit(struct served *s, struct scsi_unit *unit, const char *state_dir)
{
	struct removal *r = calloc(1, sizeof(*r));

	if (!r) {
		log_warnx("%s: cannot be taken away: out of memory", vdisk_name(unit->disk));
		return;
	}
	s->removals++;
	r->served = s;
	r->unit = unit;
	if (state_dir)
		r->state_file = unit_state_file(state_dir, unit->target->name, unit->lun);
	scsi_nexus_init(&r->nexus, unit->target, &removal_ops, NULL, 0);
	scsi_unit_leave(unit);
	r->tmf = (struct scsi_tmf) {
		.function = SCSI_LUN_RESET, .nexus = &r->nexus, .unit = unit, .done = removal_empty,
	};
	scsi_tmf_start(&r->tmf);
}

/* ---- targets ---- */

static struct served_target *find_served(struct served *s, const char *name)
{
	struct served_target *t;

	LIST_FOREACH(t, &s->targets, link)
		if (!strcasecmp(t->scsi->name, name))
			return t;
	return NULL;
}

static struct served_target *new_target(struct served *s, const char *name)
{
	struct served_target *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->scsi = scsi_target_new(name);
	if (t->scsi)
		t->iscsi = iscsi_server_add_target(&s->server, t->scsi);
	if (!t->iscsi) {
		scsi_target_free(t->scsi, NULL);
		free(t);
		return NULL;
	}
	LIST_INSERT_HEAD(&s->targets, t, link);
	return t;
}

/* The rules are moved out of the configuration: nobody else needs them. */
static void set_access(struct iscsi_access *to, struct iscsi_access *from)
{
	iscsi_access_clear(to);
	*to = *from;
	*from = (struct iscsi_access) { 0 };
}

static int add_unit(struct served *s, struct served_target *t, const struct config_lun *l,
		    const struct opened *o, struct vdisk_error *err)
{
	const struct scsi_unit_opts opts = {
		.read_only = l->read_only, .removable = l->removable, .type = o->type,
		.physical_size = l->physical_size, .serial = l->serial,
		.threshold_percent = l->threshold,
	};
	int r = scsi_target_add_unit(t->scsi, l->lun, o->disk, &opts, err);

	if (r == 0 && s->config->state_dir && o->type == SCSI_DISK)
		r = unit_restore(t->scsi->units[l->lun], s->config->state_dir, s->owner, err);
	return r;
}

/* What was opened becomes units; the others are added all the same if one cannot be. */
static int add_units(struct plan *plan, struct vdisk_error *err)
{
	struct served *s = plan->served;
	unsigned at = 0;
	int result = 0;

	for (unsigned i = 0; i < s->config->n_targets; i++) {
		const struct config_target *c = &s->config->targets[i];
		struct served_target *t = find_served(s, c->name);

		for (unsigned k = 0; k < c->n_luns; k++, at++) {
			const struct config_lun *l = &c->luns[k];
			struct opened *o = &plan->opened[at];

			if (t && o->grown)
				scsi_unit_resized(t->scsi->units[l->lun]);
			o->grown = false;
			if (!o->disk || !t || t->scsi->units[l->lun])
				continue;	/* its place is not free so far: second stage */
			if (add_unit(s, t, l, o, err) < 0) {
				log_warnx("%s:%u: %s", s->config->path, l->line, err->msg);
				result = -EIO;
			}
			vdisk_close(o->disk, NULL);	/* the target has its own reference */
			o->disk = NULL;
		}
	}
	return result;
}

/* What the configuration changed; where it says what it said before, a cluster may have the word. */
static void apply_access(struct served_target *t, const struct config_target *states,
			 const struct config_target *was, const struct config_target *now)
{
	for (unsigned i = 0; states && i < states->n_states; i++) {
		uint16_t group = states->states[i].group;
		uint8_t state = config_access_state(now, group);

		if (state != config_access_state(was, group) &&
		    !scsi_target_set_access(t->scsi, group, state))
			log_warnx("target %s: too many portal groups: access of %u is not changed",
				  t->scsi->name, group);
	}
}

static void apply_target(struct served *s, struct config_target *c, const struct config *old)
{
	const struct config_target *was = find_target(old, c->name);
	struct served_target *t = find_served(s, c->name);

	if (!t)
		t = new_target(s, c->name);
	if (!t) {
		log_warnx("target %s: out of memory", c->name);
		return;
	}
	t->config = c;
	t->scsi->sanitize_rate = s->config->sanitize_rate;
	set_access(&t->iscsi->access, &c->access);
	free(t->iscsi->alias);
	t->iscsi->alias = c->alias ? strdup(c->alias) : NULL;
	apply_access(t, c, was, c);
	apply_access(t, was, was, c);
	for (unsigned i = 0; was && i < was->n_luns; i++) {
		const struct config_lun *l = find_lun(c, was->luns[i].lun);
		struct scsi_unit *unit = t->scsi->units[was->luns[i].lun];

		if (unit && !(l && config_lun_same(&was->luns[i], l)))
			remove_unit(s, unit, l ? NULL : old->state_dir);
		else if (unit)
			scsi_unit_set_threshold(unit, l->threshold);
	}
}

static void apply_targets(struct plan *plan)
{
	struct served *s = plan->served;
	struct served_target *t, *next;

	for (t = LIST_FIRST(&s->targets); t; t = next) {
		next = LIST_NEXT(t, link);
		if (find_target(s->config, t->scsi->name))
			continue;
		LIST_REMOVE(t, link);
		LIST_INSERT_HEAD(&s->leaving, t, link);
		t->state_dir = plan->old && plan->old->state_dir ? strdup(plan->old->state_dir) : NULL;
		iscsi_target_leave(t->iscsi);
	}
	for (unsigned i = 0; i < s->config->n_targets; i++)
		apply_target(s, &s->config->targets[i], plan->old);
}

/* ---- stages ---- */

static void plan_over(struct plan *plan)
{
	struct served *s = plan->served;
	struct vdisk_error err = plan->err;
	bool failed = plan->error < 0;

	s->plan = NULL;
	plan_free(plan);
	if (s->reloaded)
		s->reloaded(s, failed ? &err : NULL);
	if (s->again) {
		s->again = false;
		served_reload(s);
	}
}

/* Everything but what has to wait.  What fails now is left out. */
static int carry_out(struct plan *plan, struct vdisk_error *err)
{
	struct served *s = plan->served;
	int r;

	s->config = STEAL(plan->config);
	s->server.limits = s->config->limits;
	set_access(&s->server.discovery, &s->config->discovery);
	apply_portals(plan);
	apply_targets(plan);
	r = add_units(plan, err);
	iscsi_server_readmit(&s->server);
	return r;
}

static void second_opened(struct service_job *job)
{
	struct plan *plan = container_of(job, struct plan, job);

	if (add_units(plan, &plan->err) < 0 || plan->error < 0)
		plan->error = fail(&plan->err, EIO, "%s is in force, but not all of its LUNs are "
				   "as it says", plan->served->config->path);
	config_free((struct config *)(uintptr_t)plan->old);
	plan->old = NULL;
	plan_over(plan);
}

/*
 * LUNs that stay and shall be larger, or were made so from outside.  (Nobody but a plan adds and removes units, so
 * they can be looked at from its thread.)
 */
static void grow_units(struct plan *plan)
{
	const struct config *c = plan->served->config;
	unsigned at = 0;

	for (unsigned i = 0; i < c->n_targets; i++) {
		struct served_target *t = find_served(plan->served, c->targets[i].name);

		for (unsigned k = 0; k < c->targets[i].n_luns; k++, at++) {
			const struct config_lun *l = &c->targets[i].luns[k];
			struct scsi_unit *unit = t ? t->scsi->units[l->lun] : NULL;
			struct vdisk_error why = { 0 };

			if (!unit || plan->opened[at].disk)
				continue;
			if (vdisk_refresh(unit->disk) > 0)
				plan->opened[at].grown = true;
			if (!l->size || l->size == vdisk_size(unit->disk))
				continue;
			if (grow(unit->disk, l, &why) == 0) {
				plan->opened[at].grown = true;
			} else {
				log_warnx("%s:%u: %s", c->path, l->line, why.msg);
				plan->error = -EIO;
			}
		}
	}
}

static void second_open(struct service_job *job)
{
	struct plan *plan = container_of(job, struct plan, job);

	int r = open_disks(plan, true, &plan->err);

	if (r < 0)
		plan->error = r;
	grow_units(plan);
}

struct closing {
	struct service_job job;
	struct served *served;
	struct scsi_target *scsi;
	char *state_dir;		/* owned, or NULL */
};

static void closing_run(struct service_job *job)
{
	struct closing *c = container_of(job, struct closing, job);
	char *files[SCSI_MAX_LUNS] = { NULL };
	struct vdisk_error err = { 0 };

	for (uint16_t lun = 0; c->state_dir && lun < SCSI_MAX_LUNS; lun++)
		if (c->scsi->units[lun])
			files[lun] = unit_state_file(c->state_dir, c->scsi->name, lun);
	if (scsi_target_free(c->scsi, &err) < 0)
		log_warnx("%s", err.msg);
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		if (files[lun])
			forget(files[lun]);
		free(files[lun]);
	}
}

static void closing_done(struct service_job *job)
{
	struct closing *c = container_of(job, struct closing, job);

	c->served->removals--;
	free(c->state_dir);
	free(c);
}

/* A target that nobody uses any more: its disks are closed on a thread. */
static void close_target(struct served *s, struct served_target *t)
{
	struct closing *c = calloc(1, sizeof(*c));

	if (!c)
		return;		/* the next tick tries again */
	LIST_REMOVE(t, link);
	iscsi_target_free(t->iscsi);
	*c = (struct closing) {
		.job = { .run = closing_run, .done = closing_done }, .served = s, .scsi = t->scsi,
		.state_dir = t->state_dir,
	};
	free(t);
	s->removals++;
	service_job_start(&c->job);
}

/* Once a second while a plan waits for what is leaving. */
static void tick(struct reactor_timer *timer)
{
	struct served *s = container_of(timer, struct served, timer);
	struct served_target *t, *next;

	for (t = LIST_FIRST(&s->leaving); t; t = next) {
		next = LIST_NEXT(t, link);
		if (iscsi_target_idle(t->iscsi) && scsi_target_quiesce(t->scsi))
			close_target(s, t);
	}
	if (!LIST_EMPTY(&s->leaving) || s->removals) {
		reactor_arm(s->reactor, &s->timer, 1);
		return;
	}
	s->plan->job.run = second_open;
	s->plan->job.done = second_opened;
	service_job_start(&s->plan->job);
}

static void first_prepared(struct service_job *job)
{
	struct plan *plan = container_of(job, struct plan, job);
	struct served *s = plan->served;

	if (plan->error == 0 && s->server.stopping)
		plan->error = fail(&plan->err, ECANCELED, "the server is stopping");
	if (plan->error == 0)
		plan->error = open_portals(plan, &plan->err);
	if (plan->error < 0) {
		struct vdisk_error why = plan->err;

		fail(&plan->err, -plan->error, "not reloaded: %.480s", why.msg);
		plan_over(plan);
		return;
	}
	plan->error = carry_out(plan, &plan->err);
	tick(&s->timer);
}

static void first_prepare(struct service_job *job)
{
	struct plan *plan = container_of(job, struct plan, job);

	plan->error = config_load(&plan->config, plan->old->path, &plan->err);
	if (plan->error == 0)
		plan->error = prepare(plan, &plan->err);
}

void served_reload(struct served *s)
{
	struct plan *plan;

	if (s->plan || s->server.stopping) {
		s->again = s->plan;
		return;
	}
	plan = calloc(1, sizeof(*plan));
	if (!plan) {
		log_warnx("reload: out of memory");
		return;
	}
	*plan = (struct plan) {
		.job = { .run = first_prepare, .done = first_prepared },
		.served = s, .old = s->config,
	};
	s->plan = plan;
	service_job_start(&plan->job);
}

int served_start(struct served *s, struct reactor *reactor, struct config *config,
		 uid_t owner, struct vdisk_error *err)
{
	struct plan *plan = calloc(1, sizeof(*plan));
	int r;

	*s = (struct served) { .reactor = reactor, .owner = owner, .timer.expired = tick };
	LIST_INIT(&s->portals);
	LIST_INIT(&s->targets);
	LIST_INIT(&s->leaving);
	iscsi_server_init(&s->server, reactor);
	if (!plan) {
		config_free(config);
		return fail(err, ENOMEM, "out of memory");
	}
	*plan = (struct plan) { .served = s, .config = config };
	r = prepare(plan, err);
	if (r == 0)
		r = open_portals(plan, err);
	if (r == 0 && carry_out(plan, err) < 0)
		r = fail(err, EIO, "not all LUNs can be served");
	plan_free(plan);
	return r;
}

void served_stop(struct served *s)
{
	while (!LIST_EMPTY(&s->portals))
		close_portal(LIST_FIRST(&s->portals));
	if (s->server.stopping)
		iscsi_server_drop(&s->server);
	else
		iscsi_server_stop(&s->server);
}

bool served_idle(const struct served *s)
{
	const struct served_target *t;

	/* what runs in the background is stopped by the end only */
	if (s->server.stopping)
		LIST_FOREACH(t, &s->targets, link)
			if (!scsi_target_quiesce(t->scsi))
				return false;
	return !s->plan && service_jobs() == 0;
}

int served_end(struct served *s, struct vdisk_error *err)
{
	struct served_target *t;
	int result = 0;

	while (!LIST_EMPTY(&s->portals))
		close_portal(LIST_FIRST(&s->portals));
	while ((t = LIST_FIRST(&s->targets))) {
		int r;

		LIST_REMOVE(t, link);
		iscsi_target_free(t->iscsi);
		free(t->state_dir);
		r = scsi_target_free(t->scsi, result ? NULL : err);
		if (result == 0)
			result = r;
		free(t);
	}
	iscsi_server_fini(&s->server);
	config_free(s->config);
	s->config = NULL;
	return result;
}

unsigned served_try(const struct config *c)
{
	unsigned failed = 0;

	for (unsigned i = 0; i < c->n_targets; i++)
		for (unsigned k = 0; k < c->targets[i].n_luns; k++) {
			struct config_lun l = c->targets[i].luns[k];
			struct vdisk_error err = { 0 };
			struct opened o = { 0 };

			l.size = 0;
			l.read_only = l.share = true;	/* it may be served at this moment */
			if (open_lun(&o, c, &l, &err) < 0) {
				log_warnx("%s", err.msg);
				failed++;
			} else {
				vdisk_close(o.disk, NULL);
			}
		}
	return failed;
}
