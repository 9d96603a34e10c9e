/*
 * Descriptors of a plan, made anew and put in their places.
 */
#ifndef LCP_PLACES_H
#define LCP_PLACES_H

#include <sys/resource.h>

#include "become/blob.h"

struct why;

struct places {
	const struct plan_header *plan;
	int above;               /* all numbers of the plan */
	char *is_planned;        /* for each number below that */
	int memory;              /* memory.img, or -1 where it is not needed */
	int *files;              /* of the plan; -1: not open */
	struct blob_kept *kept;  /* what this process was started with under numbers of the plan */
	uint32_t kept_count;
	int is_whole;            /* a descriptor that cannot have its number is an error */
	int made;                /* how many of its rows are in place */
	struct rlimit limit;     /* of open files, as this process was given it */
};

/* Open memory.img and what the plan's areas are of, below a snapshot's directory; 0 or -1. */
int lcp_places_open(struct places *places, const struct plan_header *plan, int directory, struct why *why);
/* Make the descriptors, of which `slot` is the request's; 0 or -1. */
int lcp_places_make(struct places *places, int slot, char *const *arguments, struct why *why);
/*
 * Send the copy, for a conventional start that it may have to make itself, `how`, and what this process was started with
 * under numbers of the plan; 0 or -1.
 */
int lcp_places_hand_over(const struct places *places, int control, char how, struct why *why);
/* Lower the limit of open files again, which they may have needed to be raised. */
void lcp_places_settle(const struct places *places);
/* Close all that was made and opened, and put what was kept where it was. */
void lcp_places_undo(struct places *places);
/* Move one out of the way if its number is of the plan; 0 or -1 with errno. */
int lcp_places_yield(const struct places *places, int *fd);

/* Make the descriptor of a row, or of a row and the other end behind it; 0, or -1 with the reason (make.c). */
int lcp_make_descriptor(const struct places *places, const struct plan_descriptor *row, int slot, int pair[2],
			struct why *why);

#endif
