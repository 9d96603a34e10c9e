/*
 * What goes on while the program runs, and after it has ended: its snapshot is made, or seen to be good.
 */
#ifndef LCP_BACKGROUND_H
#define LCP_BACKGROUND_H

struct target;

/* A job that begins when this process, which becomes the program, has ended. */
struct background {
	const char *entry; /* the directory in the cache */
	const struct target *target;
	char *const *env;
	char seen[64];     /* which snapshot was found, of lcp_background_see: another one is of another job */
	int is_copy;       /* whether the program is going to be a copy: then there is something to do if that goes wrong */
	int wait_ms;       /* for the end of this process; 0: as long as it takes */
};

/* Whether this user may keep something in a directory: what belongs to another is neither read nor written to. */
int lcp_is_own_place(const char *path);

/* Note which snapshot there is; to be called before that is tried. */
void lcp_background_see(struct background *job);
/* Start it, in a session of its own, with no descriptor of ours, and as no child of this process; 0 or -1. */
int lcp_background_start(const struct background *job);

/* The file by which a copy says that it has ended in order: it removes it. With content there is no copy. */
void lcp_watch_path(char *path, const char *entry);

#endif
