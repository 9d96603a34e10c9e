/*
 * A process dumps itself, without criu and without any right.
 */
#ifndef LCP_NATIVE_NATIVE_H
#define LCP_NATIVE_NATIVE_H

#include <stdint.h>

/* cdef: begin */

struct lcp_native {
	int order, facts, memory, result, staging; /* descriptors: of the publisher, and of the files to be written */
	int stages[2];           /* a pipe that tells the publisher how far the dump is; the dump closes it */
	int slot;                /* the descriptor that a copy reads its request from */
	int then_exit;           /* end with status 0 once the snapshot is published */
	int is_trial;            /* of whether there can be a snapshot: the file for memory takes all, and keeps nothing */
	int deadline_ms;         /* for the publisher */
	char *const *argv;       /* of the publisher, which has the program's environment: a copy of it would be in the dump */
	/* Results. */
	int keeper;              /* the publisher's parent, if there is a publisher */
	int publisher;
	void *scratch;           /* memory of the dump itself */
	int failed_thread;       /* which could not be stopped */
	int status;              /* the publisher's wait status */
	int64_t parked_ns, stood_ns; /* until all stood still, and until they went on */
};

/*
 * Start the publisher, which makes itself ready while the program prepares its dump: 0 or -errno. It is no child of the
 * program's, which could wait for it and would get SIGCHLD: its parent is the keeper, another process with our memory.
 */
int lcp_native_start(struct lcp_native *native);
/* Stop it, if there is one. */
void lcp_native_stop(struct lcp_native *native);

/*
 * Dump this process: 1 in a copy, 0 in the original where the snapshot is published, or -errno where there is none, and
 * the process is as it was: -EAGAIN, -ETIMEDOUT a thread could not be stopped, -ECHILD the publisher refused, -ETIME it
 * took too long, -ENOTSUP this process cannot.
 */
int lcp_native_dump(struct lcp_native *native);

/* Show a command line, of words with a NUL behind each, in ps and /proc/self/cmdline of a copy; 0 or -errno. */
int lcp_native_set_arguments(const char *words, int size);
/* The pid of the process that was dumped; 0 where none was. */
int lcp_native_dumped_pid(void);
/* In a copy, the id of the thread that had this one at the dump; 0 if there was none. */
int lcp_native_new_tid(int tid);

/* Have the pid put at these places in copies, before any thread goes on. They stay where they are. */
void lcp_native_renew_pids(int *const *places, int count);

/* cdef: end */

#endif
