/*
 * What the units behind support.h have in common; nobody else includes it.
 */
#ifndef LIBCRIU_PY_PARTS_H
#define LIBCRIU_PY_PARTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_FDS 253 /* SCM_MAX_FD of the kernel, net/core/scm.c */

/* Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
#define PAGE_PRESENT (1ull << 63)
#define PAGE_SWAPPED (1ull << 62)
#define PAGE_OF_FILE (1ull << 61)

/* What a file of pages consists of. */
struct lcp_range {
	uint64_t start, end;
	uint64_t written; /* it is the process's own, and no longer a file's */
};

/* Wait for a child; its wait status or -errno. */
int lcp_wait_for(pid_t pid);
/* Kill a process and all that descend from it, or only these. */
void lcp_kill_tree(pid_t pid);
void lcp_kill_children(pid_t pid);
/* Raise a soft limit of this process to the hard one; safe after vfork. */
void lcp_raise_limit(int resource);
int lcp_pidfd_open(pid_t pid);
int lcp_pidfd_signal(int pidfd, int sig);
/* The pid behind a pidfd in our pid namespace; 0 if it has ended. */
pid_t lcp_pid_behind(int pidfd);
ssize_t lcp_send_message(int sock, const void *data, size_t size, const int *fds, int count);
ssize_t lcp_receive_message(int sock, void *data, size_t size, int *fds, int *count);
void lcp_close_all_but(int *keep, int count);
int lcp_same_user(int sock);
int lcp_listen_at(const char *name);
/* Tell the caller of a supervisor what has happened, with a descriptor or -1. */
void lcp_tell(int channel, int kind, int value, int error, int stage, int fd);
/* Tell that a job has failed, and end. */
void lcp_fail(int channel, int value, int error, int stage) __attribute__((noreturn));
int lcp_set_ambient(uint64_t bits);
int lcp_drop_capabilities(void);
int lcp_empty_bounding_set(uint64_t inheritable);
int lcp_map_own_ids(uid_t uid, gid_t gid);
int lcp_make_namespaces(int namespaces, int *stage);
int lcp_mount_own_proc(int namespaces);
int lcp_continue_clocks(int64_t monotonic, int64_t boottime);

#endif
