/*
 * A user, pid and mount namespace of one's own, and the capabilities for it.
 */
#ifndef LCP_NAMESPACES_H
#define LCP_NAMESPACES_H

#include <stdint.h>
#include <sys/types.h>

/* cdef: begin */

/* Namespaces of a job; 0 runs it where the caller is. */
#define LCP_NS_USER 1
#define LCP_NS_PID 2

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
#define LCP_STAGE_WORK 12 /* making the directory for criu's log */
#define LCP_STAGE_CRIU 11 /* the signal that has ended it */
/* Of LCP_EVENT_ENDED: the supervisor stays for what the program left running. */
#define LCP_STAGE_LINGERING 10

/* May this process make user + pid + mount namespaces with a /proc? 0, or -errno and the stage. */
int lcp_probe_namespaces(int namespaces, int *stage);

/* cdef: end */

int lcp_set_ambient(uint64_t bits);
int lcp_drop_capabilities(void);
int lcp_empty_bounding_set(uint64_t inheritable);
int lcp_map_own_ids(uid_t uid, gid_t gid);
int lcp_make_namespaces(int namespaces, int *stage);
int lcp_mount_own_proc(int namespaces);
int lcp_continue_clocks(int64_t monotonic, int64_t boottime);

#endif
