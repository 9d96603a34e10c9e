/*
 * Threads that stand still, each in the handler of a signal, and go on from there in copies.
 */
#ifndef LCP_NATIVE_THREADS_H
#define LCP_NATIVE_THREADS_H

#include <linux/prctl.h>
#include "native/syscalls.h"

#define MOST_THREADS 1024
#define MOST_TIMERS 256
#define PARKING_SIGNAL 33 /* glibc's SIGSETXID, which sigfillset and pthread_sigmask leave alone */

/* What a function call leaves to its caller. */
struct context {
	uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
	uint32_t mxcsr, control_word;
};

enum thread_state { THREAD_GONE, THREAD_NEW, THREAD_ASKED, THREAD_PARKED };

struct thread {
	int tid;
	volatile int state;
	struct context context;
	uint64_t fs, gs, tid_address, robust, robust_size, pending;
	uint64_t interrupted_at;             /* where the signal found it */
	uint64_t call_sp, call_pc;           /* of the system call that it was in */
	uint64_t arguments[6];
	long call;                           /* its number, or -1 */
	int blocks_signal;                   /* that which parks threads, but for our sake */
	int begins_anew;                     /* that call, in the original and in each copy */
	int new_tid;                         /* in a copy */
	uint64_t signal_stack[3];            /* stack_t */
	char name[16];
};

/* A timer of timer_create(2). */
struct posix_timer {
	int id, clock, signal, notify, thread;
	uint64_t value;
	int64_t when[4];                     /* struct itimerspec: interval and value */
};

/* All that is known of the process, in its memory, so that copies have it. */
struct standing {
	int pid, own_tid, thread_count, leader;
	volatile uint32_t parked, released;
	/* In a copy. */
	volatile uint32_t arrived, may_go;
	uint64_t rseq_offset, rseq_size;
	int64_t timers[3][4];                /* of setitimer(2): interval and value */
	int timer_count;
	int *timer_thread;                   /* where glibc has the id of its thread for timers, or NULL */
	uint64_t timer_data[2];              /* glibc's data */
	long barriers;                       /* for which the process is registered (membarrier(2)) */
	struct kernel_action actions[65];
	struct prctl_mm_map mm;
	uint64_t auxv[64];
	struct thread threads[MOST_THREADS];
	struct posix_timer posix_timers[MOST_TIMERS];
};

extern struct standing *lcp_standing;

/* As setjmp, without a mask: 0, and 1 where lcp_continue_context goes on. */
int lcp_save_context(struct context *context) __attribute__((returns_twice));
void lcp_continue_context(const struct context *context) __attribute__((noreturn));

/* Have all other threads stand still; 0 or -errno, with the thread that did not. They go on with lcp_release. */
int lcp_park_all(char *room, size_t size, int *failed);
void lcp_release(int error);
/* Have a thread no longer block the parking signal; 0 or -errno. The room is of at least 64 kB (unblock.c). */
long lcp_unblock(int thread, char *room, size_t size);
/* Note what the kernel knows of the calling thread only. */
void lcp_describe_thread(struct thread *thread);
struct thread *lcp_find_thread(int tid);
#define RSEQ_UNREGISTER 1
/* Register the calling thread for restartable sequences (rseq(2)), or withdraw that. */
void lcp_register_rseq(const struct thread *thread, int flags);
/* Called in each thread of a copy before it goes on. */
void lcp_arrive(const struct thread *thread);

#endif
