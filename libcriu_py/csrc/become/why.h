/*
 * Why a process cannot be become.
 */
#ifndef LCP_WHY_H
#define LCP_WHY_H

/* A sentence without its end, cut if longer. */
struct why {
	int is_changed;          /* a file is not what it was at the dump, so that no other attempt can succeed */
	char text[600];
};

/* Set it; returns -1, for the caller to return. */
int lcp_why(struct why *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
