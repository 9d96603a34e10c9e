/*
 * Looking for several texts at once in a large file, at about the speed of memory.
 */
#ifndef LIBCRIU_PY_SEARCH_H
#define LIBCRIU_PY_SEARCH_H

#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
/* Which of up to 32 texts, each of 8 bytes or more, are in the data: a bit for each. */
uint32_t lcp_find_texts(const char *data, size_t size, const char *const *texts, const size_t *sizes, int count);
/*
 * Where words of 8 bytes in the data, which are aligned there, are numbers from `low` to `high`: their offsets, of the
 * first `most`. Returns how many there are.
 */
size_t lcp_find_words(const char *data, size_t size, uint64_t low, uint64_t high, uint64_t *places, size_t most);
/* cdef: end */

#endif
