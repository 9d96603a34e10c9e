#define _GNU_SOURCE
#include "native/compare.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK (256 << 10) /* stays in the processor's cache */

int64_t lcp_count_alike(int memory, uint64_t at, const char *expected, uint64_t size)
{
	char *block = malloc(BLOCK);
	uint64_t done = 0;
	int64_t result = 0;

	if (!block)
		return -ENOMEM;
	while (done < size) {
		ssize_t n = pread(memory, block, size - done < BLOCK ? size - done : BLOCK, (off_t)(at + done));

		if (n <= 0) {
			result = n ? -errno : -EIO;
			break;
		}
		if (memcmp(block, expected + done, (size_t)n)) {
			for (ssize_t i = 0; block[i] == expected[done]; i++)
				done++;
			break;
		}
		done += (uint64_t)n;
	}
	free(block);
	return result ? result : (int64_t)done;
}
