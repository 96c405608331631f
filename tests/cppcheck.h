/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cppcheck.h - for cppcheck only, which does not read <sys/queue.h> */
#define LIST_HEAD(name, type) struct { struct type *lh_first; }
#define TAILQ_HEAD(name, type) struct { struct type *tqh_first, **tqh_last; }
#define TAILQ_ENTRY(type) struct { struct type *tqe_next, **tqe_prev; }
#define LIST_ENTRY(type) struct { struct type *le_next, **le_prev; }
#define TAILQ_FOREACH(var, head, field) \
	for ((var) = (head)->tqh_first; (var); (var) = (var)->field.tqe_next)
#define LIST_FOREACH(var, head, field) \
	for ((var) = (head)->lh_first; (var); (var) = (var)->field.le_next)
