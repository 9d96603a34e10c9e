#include "common/search.h"

#include <string.h>

#define WINDOW 8  /* the bytes of each text that are looked at first */
#define HASHES 4096

static unsigned int hash(const char *pair)
{
	return ((unsigned char)pair[0] << 4 ^ (unsigned char)pair[1]) & (HASHES - 1);
}

static uint32_t begins_with(const char *data, size_t size, const char *const *texts, const size_t *sizes, int count)
{
	uint32_t found = 0;

	for (int i = 0; i < count; i++)
		if (sizes[i] <= size && !memcmp(data, texts[i], sizes[i]))
			found |= 1u << i;
	return found;
}

/* By Wu and Manber: the last two bytes of a window tell how far it can move before a text may begin in it. */
uint32_t lcp_find_texts(const char *data, size_t size, const char *const *texts, const size_t *sizes, int count)
{
	unsigned char moves[HASHES];
	uint32_t found = 0;
	size_t at = 0;

	memset(moves, WINDOW - 1, sizeof(moves));
	for (int i = 0; i < count; i++)
		for (unsigned char end = 1; end < WINDOW; end++) {
			unsigned char *move = &moves[hash(texts[i] + end - 1)];

			if (*move > WINDOW - 1 - end)
				*move = (unsigned char)(WINDOW - 1 - end);
		}
	while (at + WINDOW <= size) {
		unsigned char move = moves[hash(data + at + WINDOW - 2)];

		if (!move)
			found |= begins_with(data + at, size - at, texts, sizes, count);
		at += move ? move : 1;
	}
	return found;
}

size_t lcp_find_words(const char *data, size_t size, uint64_t low, uint64_t high, uint64_t *places, size_t most)
{
	size_t found = 0;

	for (size_t at = 0; at + sizeof(uint64_t) <= size; at += sizeof(uint64_t)) {
		uint64_t word;

		memcpy(&word, data + at, sizeof(word));
		if (word - low > high - low)
			continue;
		if (found < most)
			places[found] = at;
		found++;
	}
	return found;
}
