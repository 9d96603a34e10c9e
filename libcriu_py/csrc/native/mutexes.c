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
#define LINE 64 /* bytes */
#define OWNER 8 /* its offset */
#define COMMON 1000 /* thread ids below stand in memory for other reasons, and are those of containers */

typedef uint32_t vector __attribute__((vector_size(16), may_alias));

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

/*
 * Whether a thread may wait for a condition with a mutex, and so has its address on its stack, or in a register that the
 * signal's frame there has (pthread_cond_wait).
 */
static int may_wait_with(struct scratch *scratch, const struct thread *thread, int memory, uint64_t mutex)
{
	const uint64_t *words = (const uint64_t *)scratch->room;
	/* What glibc knows of a thread is at the top of its stack. */
	uint64_t most = thread->fs - thread->context.rsp;
	long size;

	most = most < sizeof(scratch->room) ? most : sizeof(scratch->room);
	size = SYSCALL4(pread64, memory, scratch->room, most, thread->context.rsp);
	/* It waits below a signal handler with a stack of its own, or nobody knows. */
	if (size <= 0 || (thread->signal_stack[1] & 1 /* SS_ONSTACK */))
		return 1;
	for (long i = 0; i < size / 8; i++)
		if (words[i] == mutex)
			return 1;
	return 0;
}

/* Whether as many threads may wait with a mutex as it says: it has users beside its holder only while they wait. */
static int has_its_users(struct scratch *scratch, const struct mutex *mutex)
{
	const struct standing *standing = lcp_standing;
	long memory = SYSCALL3(open, "/proc/self/mem", 02000000 /* O_CLOEXEC */, 0);
	uint32_t users = 1;

	for (int i = 0; i < standing->thread_count && users < mutex->users; i++)
		if ((uint32_t)standing->threads[i].tid != mutex->owner)
			users += (uint32_t)may_wait_with(scratch, &standing->threads[i], (int)memory, (uint64_t)mutex);
	if (memory >= 0)
		SYSCALL1(close, memory);
	return users >= mutex->users;
}

/* Add a mutex if it is one, and held. */
static void look_at(struct scratch *scratch, const struct mutex *mutex)
{
	if (!is_held(mutex) || !lcp_find_thread((int)mutex->owner))
		return;
	if (mutex->owner < COMMON && !has_its_users(scratch, mutex))
		return;
	lcp_fact_numbers(scratch, "held", (const uint64_t[]){ (uint64_t)mutex, mutex->owner, mutex->kind }, 3);
}

void lcp_find_held_mutexes(struct scratch *scratch, uint64_t start, uint64_t end, uint64_t from, uint64_t to)
{
	const struct standing *standing = lcp_standing;
	uint32_t lowest = ~0u, highest = 0, span;

	for (int i = 0; i < standing->thread_count; i++) {
		uint32_t tid = (uint32_t)standing->threads[i].tid;

		lowest = tid < lowest ? tid : lowest;
		highest = tid > highest ? tid : highest;
	}
	span = highest - lowest;
	/* Hardly a word of memory is an id of a thread: eight at a time are none, several GB a second. */
	for (uint64_t line = from; line < to; line += LINE) {
		const vector *words = (const vector *)line;
		const vector found = (vector)((words[0] - lowest <= span) | (words[1] - lowest <= span) |
					      (words[2] - lowest <= span) | (words[3] - lowest <= span));

		if (!(found[0] | found[2])) /* an owner is the lower half of a word */
			continue;
		for (uint64_t at = line - OWNER; at < line + LINE - OWNER; at += 8)
			if (at >= start && at + sizeof(struct mutex) <= end &&
			    ((const struct mutex *)at)->owner - lowest <= span)
				look_at(scratch, (const struct mutex *)at);
	}
}
#endif
