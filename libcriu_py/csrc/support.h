/*
 * What the self-checkpoint and the restore need beyond libcriu: a keeper for
 * parked descriptors, and a supervisor that restores (or starts) a program in
 * namespaces of its own and reports what becomes of it.
 */
#ifndef LIBCRIU_PY_SUPPORT_H
#define LIBCRIU_PY_SUPPORT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "criu.h"

/* cdef: begin */

/* Namespaces of a job; 0 runs it where the caller is. */
#define LCP_NS_USER 1
#define LCP_NS_PID 2

/* Kill the program when the process that asked for it is gone. */
#define LCP_DIE_WITH_CALLER 1
/*
 * Restore it in a session without a terminal, for somebody to take it. Until the caller sends a byte on the channel, which
 * says that it was taken, all that was restored ends with the caller.
 */
#define LCP_STANDBY 2
/*
 * Start criu at once, tell LCP_EVENT_SUPERVISED, and let it restore when the caller has sent a byte on the channel; without
 * it all ends.
 */
#define LCP_AWAIT_WORD 4

/* What an event tells. */
#define LCP_EVENT_FAILED 1
#define LCP_EVENT_STARTED 2
#define LCP_EVENT_STOPPED 3
#define LCP_EVENT_ENDED 5
#define LCP_EVENT_SUPERVISED 6

/* Where a job failed. */
#define LCP_STAGE_UNSHARE 1
#define LCP_STAGE_IDMAP 2
#define LCP_STAGE_FORK 3
#define LCP_STAGE_PROC 4
#define LCP_STAGE_LAST_PID 5
#define LCP_STAGE_CAPABILITIES 6
#define LCP_STAGE_EXEC 7
#define LCP_STAGE_RESTORE 8
#define LCP_STAGE_SERVICE 9
/* Of LCP_EVENT_ENDED: the supervisor stays for what the program left running. */
#define LCP_STAGE_LINGERING 10

struct lcp_event {
	int32_t kind;   /* LCP_EVENT_* */
	int32_t value;  /* pid, signal, wait status, or libcriu's return value */
	int32_t error;  /* errno of a failure */
	int32_t stage;  /* LCP_STAGE_* */
};

struct lcp_job {
	int namespaces;          /* LCP_NS_* */
	int flags;               /* LCP_DIE_WITH_CALLER, LCP_STANDBY */
	uint64_t ambient;        /* capability bits that criu, or the program, is given */
	int last_pid;            /* pids of a new pid namespace begin after it; 0: leave */
	int64_t monotonic;       /* nanoseconds from which these clocks go on for a restored program; 0: leave */
	int64_t boottime;
	const int *inherit;      /* descriptors to be kept over an exec */
	int inherit_count;
	criu_opts *restore;      /* options of a restore, or NULL to exec */
	char *const *argv;       /* program to exec, without any capability */
	char *const *env;        /* its environment, or criu's */
	const char *service;     /* abstract socket on which that program is served a criu, or NULL */
	char *const *criu_argv;  /* command of that criu but the last word, the descriptor */
	char *const *criu_env;
	void (*restored)(void *context); /* called in the supervisor before it tells of a restored program, or NULL */
	void *context;
};

/*
 * Start the supervisor of a job, a child of the caller; 0 or -errno. `channel` gets the socket on
 * which its events arrive; LCP_EVENT_SUPERVISED tells its pid.
 */
int lcp_supervise(const struct lcp_job *job, int *channel);

/* Next event: 1 got, 0 time is up, -EPIPE the supervisor is gone, -errno. `pidfd` is set by LCP_EVENT_STARTED. */
int lcp_next_event(int channel, int timeout_ms, struct lcp_event *event, int *pidfd);

/*
 * Behave as the program that `pidfd` is until it ends; its wait status in `status`.
 * `terminal`: it has a session of its own, so the terminal's signals are passed on too.
 * `handed`: descriptors that were passed on to it, or NULL.
 */
struct lcp_handed {
	int control;             /* the socket on which it tells that its own code runs */
	const int *fds;          /* to be closed then, or a pipe would never end here; until then it can be started otherwise */
	int count;
};
int lcp_mirror(int channel, int pidfd, int terminal, const struct lcp_handed *handed, int *status);

/* Hold `fds` open in a process outside this one's tree; the abstract socket name to get them back is written to `name`. */
int lcp_keep_fds(const int *fds, int count, char *name, size_t size, int *keeper);
int lcp_take_fds(const char *name, int *fds, int count);
/* Connect to an abstract SOCK_SEQPACKET socket of this user; the descriptor or -errno. */
int lcp_connect(const char *name);
/* A name for such a socket that nobody can guess. */
int lcp_random_name(char *name, size_t size);

/* One message with descriptors on a SOCK_SEQPACKET socket, and a byte that tells what they are. */
int lcp_send_tagged(int socket, char tag, const int *fds, int count);
int lcp_receive_tagged(int socket, char *tag, int *fds, int limit);
int lcp_socketpair(int *pair);
/* One message without any: 0 or -errno, and never a SIGPIPE. */
int lcp_send(int socket, const char *data, size_t size);

/* The name of the socket on which copies of a snapshot wait, of its manifest; 0 or -errno. */
int lcp_standby_name(const char *manifest, char *name, size_t size);
/* What a copy would have to inherit from this process, who wants this mode, as lines of text; its length or -errno. */
ssize_t lcp_standby_describe(const char *mode, char *text, size_t size);

/*
 * Write into `fd` which private pages a process has in use, those that it has written apart; 0 or -errno, which is -E2BIG
 * where there are more than `limit` bytes of the latter.
 */
int lcp_list_pages(int pid, uint64_t limit, int fd);
/* Fetch the pages of such a file into this process, whose contents stay as they are. */
void lcp_fetch_pages(int fd);

/* May this process make user + pid + mount namespaces with a /proc? 0, or -errno and the stage. */
int lcp_probe_namespaces(int namespaces, int *stage);

/* Whether a descriptor of another process is the same open file as one of this process: 1, 0, or -errno. */
int lcp_same_file(int pid, int fd, int own);

void lcp_trim_heap(void);

/* Ignore a signal, in whatever thread, which Python lets the main thread only do; 0 or -errno. */
int lcp_ignore_signal(int signo);

/*
 * Copy pages that this process is going to write to, as a file says (libcriu_py/memory/working_set.py); 0 or -errno.
 */
int lcp_prefetch(const char *path);

/* The table of a process's pages; the descriptor or -errno. */
int lcp_open_pagemap(int pid);
/* Set a byte for each page of a private file mapping that was written to; 0 or -errno. */
int lcp_written_pages(int pagemap, uint64_t first, size_t count, unsigned char *written);
/* Trace a process, to have it stop when it ends; 0 or -errno. */
int lcp_observe(int pid);
/* 1 when it has stopped for that, 0 when it goes on, -ESRCH when it is gone. */
int lcp_is_ending(int pid);
/* Let it end. */
int lcp_stop_observing(int pid);

/* Niceness, policy and priority of a thread, 0 for the calling one; 0 or -errno. */
int lcp_get_schedule(int task, int *schedule);
/* Give a thread these, as far as that is permitted. */
void lcp_set_schedule(int task, const int *schedule);

/* Make a session with this process alone in it; 0 or a negative errno. */
int lcp_lead_session(void);
/* Flush C's own streams and end at once. */
void lcp_exit_now(int status);
/* Have exit(3) do that, with its status, in the place of the functions that C libraries have registered. */
int lcp_end_at_exit(void);
/* Make NUL-terminated NAME=VALUE strings, `size` bytes in all, the C environment. */
int lcp_replace_environ(const char *block, size_t size);

/* cdef: end */

/* With the byte 'F', of a request. */
int lcp_send_fds(int socket, const int *fds, int count);

/*
 * Ask the pool at `path` for a copy, with that text; 0 or -errno. The copy is the caller's then: `fds` gets the channel of
 * its supervisor, the hand-over's socket and its pidfd.
 */
int lcp_standby_take(const char *path, const char *text, size_t size, int *fds);

/*
 * As lcp_supervise, for a caller of one thread and with all signals blocked: without the process between,
 * which costs a restore some 0.2 ms. `supervisor` gets its pid; no event tells it.
 */
int lcp_supervise_directly(const struct lcp_job *job, int *channel, pid_t *supervisor);
/* Let a supervisor of a job with LCP_AWAIT_WORD go on; 0 or -errno. */
int lcp_give_word(int channel);

#endif
