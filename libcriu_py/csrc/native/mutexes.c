#define _GNU_SOURCE
#include "native/scratch.h"

#if defined(__x86_64__)
/*
 * A mutex of glibc whose holder is known by its thread id, which is another one in a copy: it could never be unlocked
 * there (nptl/pthread_mutex_unlock.c). The others, and Python's own locks, know no holder that is looked at.
 */
struct mutex {
	uint32_t lock, count, owner, users, kind, spins, list[4];
};

#define RECURSIVE 1
#define ERROR_CHECKING 2
#define INHERITS_PRIORITY 32
#define OTHER_BITS 0x380 /* shared, elision wanted, elision not wanted */
#define MOST 1000 /* of counts, beyond which it is something else */

static int is_held(const struct mutex *mutex)
{
	uint32_t type = mutex->kind & 3;

	/* The lock of one that inherits priority is the id itself, with flags. */
	if (mutex->kind & ~(uint32_t)(INHERITS_PRIORITY | OTHER_BITS | 3) || mutex->users - 1 >= MOST)
		return 0;
	/* These are of robust mutexes, which threads tell of. Small pids stand in memory for other reasons too. */
	if (mutex->spins || mutex->list[0] || mutex->list[1] || mutex->list[2] || mutex->list[3])
		return 0;
	if (mutex->kind & INHERITS_PRIORITY)
		return (mutex->lock & 0x3fffffff) == mutex->owner;
	if (mutex->lock - 1 > 1)
		return 0;
	return type == RECURSIVE ? mutex->count - 1 < MOST : type == ERROR_CHECKING && !mutex->count;
}

void lcp_find_held_mutexes(struct scratch *scratch, uint64_t start, uint64_t end)
{
	const struct standing *standing = lcp_standing;
	uint32_t lowest = ~0u, highest = 0;

	for (int i = 0; i < standing->thread_count; i++) {
		uint32_t tid = (uint32_t)standing->threads[i].tid;

		lowest = tid < lowest ? tid : lowest;
		highest = tid > highest ? tid : highest;
	}
	for (uint64_t at = start; at + sizeof(struct mutex) <= end; at += 8) {
		const struct mutex *mutex = (const struct mutex *)at;

		if (mutex->owner - lowest > highest - lowest || !is_held(mutex) || !lcp_find_thread((int)mutex->owner))
			continue;
		lcp_fact_numbers(scratch, "held", (const uint64_t[]){ at, mutex->owner, mutex->kind }, 3);
	}
}
#endif
