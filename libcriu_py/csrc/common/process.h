/*
 * What a process does to itself, and waiting for its children.
 */
#ifndef LCP_PROCESS_H
#define LCP_PROCESS_H

#include <stddef.h>
#include <sys/types.h>

/* cdef: begin */

void lcp_trim_heap(void);

/* Ignore a signal, in whatever thread, which Python lets the main thread only do; 0 or -errno. */
int lcp_ignore_signal(int signo);

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

/* Kill a process and all that descend from it. */
void lcp_kill_tree(int pid);
/* Continue children that have stopped: helpers, which nobody else would continue. */
void lcp_continue_children(void);

/* cdef: end */

/* What a copy does first, when the dump of this process has returned in it; NULL: nothing. */
extern void (*lcp_on_arrival)(void);

/* Wait for a child; its wait status or -errno. */
int lcp_wait_for(pid_t pid);
/* Kill all that descend from a process. */
void lcp_kill_children(pid_t pid);
/* Kill and reap a process, and kill all that descend from it, if it is a child of this one. */
void lcp_end_child(pid_t pid);
/*
 * Kill and reap all children of this process, which has one thread, but one, and what these leave to it: all that descend
 * from it if it is a reaper (PR_SET_CHILD_SUBREAPER). Safe in handlers of signals.
 */
void lcp_end_children(pid_t but);
/* The milliseconds of CLOCK_MONOTONIC. */
long long lcp_now_ms(void);
/* Raise a soft limit of this process to the hard one; safe after vfork. */
void lcp_raise_limit(int resource);

#endif
