/*
 * Restores that must not run at once: of sockets with one address, and of deleted files, which criu gives one name.
 */
#ifndef LCP_TURNS_H
#define LCP_TURNS_H

struct problem;
struct snapshot;

struct turns {
	int file; /* with the locks; -1: none */
};

/*
 * Wait until no restore of this user is in the way, and fail if another process has an address of the snapshot, which criu
 * would share with it. `signals` is readable when somebody wants this process to end. 0 or -1.
 */
int lcp_turns_take(struct turns *turns, const struct snapshot *snapshot, int limit_ms, int signals,
		   struct problem *problem);
/* Call it when the copy has its sockets and files, or will not get them. */
void lcp_turns_end(struct turns *turns);

#endif
