/*
 * The parent of this process, as the program that it stands for would see it.
 */
#ifndef LCP_PARENT_H
#define LCP_PARENT_H

/*
 * Return a pidfd of this process's parent; call it again when that has ended. -1: there is none to wait for. If the parent
 * is init, tell the supervisor on `channel`, for which the program's getppid() becomes 1, too.
 */
int lcp_watch_parent(int channel);

#endif
