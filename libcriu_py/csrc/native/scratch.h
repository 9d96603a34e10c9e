/*
 * Memory of the dump itself, of which copies have nothing: a shared mapping, so that it is not merged with an area of the program.
 */
#ifndef LCP_NATIVE_SCRATCH_H
#define LCP_NATIVE_SCRATCH_H

#include "native/native.h"
#include "native/threads.h"

#define MOST_MEMFDS 256

/* A memfd whose content is in memory.img. */
struct saved_memory {
	uint64_t inode, offset;
};

struct scratch {
	struct lcp_native *native;
	long error;                  /* the first, of what is written */
	uint64_t memory_size;        /* of memory.img so far */
	volatile uint32_t started;   /* the publisher's pid, or -errno where it was not started */
	volatile uint32_t publisher; /* its pid while it runs */
	int status;                  /* its wait status */
	int is_reaped;               /* and so is its keeper */
	struct saved_memory saved[MOST_MEMFDS];
	int saved_count;
	uint64_t size_of_all;        /* of its areas, when they were last looked at */
	size_t text_size;
	char text[2 << 20];          /* facts that are not written yet */
	char room[2 << 20];          /* for whatever is read */
	char maps[8 << 20];          /* /proc/self/maps */
	uint64_t pages[1 << 15];     /* entries of /proc/self/pagemap */
	char stack[64 << 10] __attribute__((aligned(64)));
	char keeper_stack[16 << 10] __attribute__((aligned(64)));
	char publisher_stack[16 << 10] __attribute__((aligned(64)));
};

/* Add a fact (libcriu_py/native/facts.py): a name, and what it is. */
void lcp_fact(struct scratch *scratch, const char *name, const char *text, size_t size);
/* Add one of numbers, in hexadecimal. */
void lcp_fact_numbers(struct scratch *scratch, const char *name, const uint64_t *numbers, int count);
/* Add what is known of the process; all its threads stand still. */
void lcp_collect_facts(struct scratch *scratch);
/* Write the facts that have been added. */
void lcp_write_facts(struct scratch *scratch);

/* Write the memory of this process, and add where it is. */
void lcp_write_memory(struct scratch *scratch);
/* Write the content of a memfd, once, and add where it is. */
void lcp_write_memfd(struct scratch *scratch, int fd);
/* The same for memory that it shares by no name, before other processes can change it. */
void lcp_write_shared_memory(struct scratch *scratch);
/* Add the mutexes in a range of memory that could not be unlocked in a copy, of those whose owner is in a part of it. */
void lcp_find_held_mutexes(struct scratch *scratch, uint64_t start, uint64_t end, uint64_t from, uint64_t to);

/* Write the memory of the process that stands still, and let the publisher go on, or end it after an error. */
void lcp_hand_over(struct scratch *scratch);
/*
 * Start a process in our memory, on a stack whose end is given; its pid, or -errno. There is no signal at its end as long
 * as it executes nothing: whoever waits for any child of the program does not see it.
 */
long lcp_start_here(uint64_t flags, char *stack, void (*function)(void *), void *given);
/* Wait for a child until a deadline, at which it is killed; its wait status, or -errno. */
long lcp_await_child(long pid, int deadline_ms);
/* Wait for the end of the publisher until a deadline, at which it is killed; its wait status, or -errno. */
long lcp_reap_publisher(const struct lcp_native *native);

#endif
