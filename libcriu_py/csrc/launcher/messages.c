#define _GNU_SOURCE
#include "launcher/messages.h"

#include <stdio.h>
#include <unistd.h>

#include "common/cleanup.h"

void lcp_say(const char *first, const char *second, const char *third)
{
	AUTO_FREE char *line = NULL;
	int size = asprintf(&line, "libcriu-py: %s%s%s\n", first, second, third);

	/* What files say must not move anybody's cursor: neither control characters nor, in UTF-8, C1. */
	for (unsigned char *at = (unsigned char *)line; size > 0 && *at; at++) {
		if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
			*at++ = '?';
		else if (*at >= ' ' && *at != 0x7f)
			continue;
		if (at[1])
			*at = '?'; /* all but the end of the line */
	}
	if (size > 0 && write(2, line, (size_t)size) < 0)
		return;
}
