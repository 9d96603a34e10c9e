/*
 * Descriptors: messages that carry them, sockets with names nobody can guess, pidfds.
 */
#ifndef LCP_DESCRIPTORS_H
#define LCP_DESCRIPTORS_H

#include <stddef.h>
#include <sys/types.h>

/* cdef: begin */

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

/* Whether a descriptor of another process is the same open file as one of this process: 1, 0, or -errno. */
int lcp_same_file(int pid, int fd, int own);

/* cdef: end */

/* With the byte 'F', of a request. */
int lcp_send_fds(int socket, const int *fds, int count);

#define MAX_FDS 253 /* SCM_MAX_FD of the kernel, net/core/scm.c */
int lcp_pidfd_open(pid_t pid);
int lcp_pidfd_signal(int pidfd, int sig);
ssize_t lcp_send_message(int sock, const void *data, size_t size, const int *fds, int count);
ssize_t lcp_receive_message(int sock, void *data, size_t size, int *fds, int *count);
void lcp_close_all_but(int *keep, int count);
int lcp_same_user(int sock);
int lcp_listen_at(const char *name);

/* Whether a descriptor is closed, or only held by a placeholder. */
int lcp_is_closed(int fd);

#endif
