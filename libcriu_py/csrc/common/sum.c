#define _GNU_SOURCE
#include "common/sum.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define POLYNOMIAL 0x82F63B78u
#define BLOCK (256 << 10) /* stays in the processor's cache */
#define LANE 4096         /* bytes of each of three lanes: an instruction takes three cycles, and another can begin in each */
#define WORTH_LANES (128 << 10)

/* ---- by a table ------------------------------------------------------- */

static uint32_t table[256];

static uint32_t by_table(uint32_t crc, const unsigned char *at, size_t size)
{
	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t value = i;

			for (int bit = 0; bit < 8; bit++)
				value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
			table[i] = value;
		}
	for (; size; size--)
		crc = crc >> 8 ^ table[(crc ^ *at++) & 0xFF];
	return crc;
}

/* ---- by the processor ------------------------------------------------- */

#if defined(__x86_64__)

#include <nmmintrin.h>

/* What LANE zeros make of each byte of a sum. */
static uint32_t zeros[4][256];

static void make_zeros(void)
{
	static const unsigned char none[LANE];

	/* A sum is linear: of each bit, and then of the bytes that are made of them. */
	for (int i = 0; i < 4; i++)
		for (uint32_t bit = 1; bit < 256; bit <<= 1) {
			zeros[i][bit] = by_table(bit << 8 * i, none, LANE);
			for (uint32_t rest = 1; rest < bit; rest++)
				zeros[i][bit + rest] = zeros[i][bit] ^ zeros[i][rest];
		}
}

static uint32_t shifted(uint32_t crc)
{
	return zeros[0][crc & 0xFF] ^ zeros[1][crc >> 8 & 0xFF] ^ zeros[2][crc >> 16 & 0xFF] ^ zeros[3][crc >> 24];
}

static uint64_t word(const unsigned char *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

__attribute__((target("sse4.2"))) static uint32_t by_processor(uint32_t crc, const unsigned char *at, size_t size)
{
	uint64_t first = crc;

	/* The table takes longer to make than a small file to read. */
	if (size >= WORTH_LANES && !zeros[0][1])
		make_zeros();
	for (; zeros[0][1] && size >= 3 * LANE; size -= 3 * LANE, at += 3 * LANE) {
		uint64_t second = 0, third = 0;

		for (size_t i = 0; i < LANE; i += 8) {
			first = _mm_crc32_u64(first, word(at + i));
			second = _mm_crc32_u64(second, word(at + LANE + i));
			third = _mm_crc32_u64(third, word(at + 2 * LANE + i));
		}
		first = shifted(shifted((uint32_t)first) ^ (uint32_t)second) ^ (uint32_t)third;
	}
	for (; size >= 8; size -= 8, at += 8)
		first = _mm_crc32_u64(first, word(at));
	crc = (uint32_t)first;
	for (; size; size--)
		crc = _mm_crc32_u8(crc, *at++);
	return crc;
}

static int has_instruction(void)
{
	return __builtin_cpu_supports("sse4.2");
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

#include <arm_acle.h>

static uint32_t by_processor(uint32_t crc, const unsigned char *at, size_t size)
{
	uint64_t word;

	for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		crc = __crc32cd(crc, word);
	}
	for (; size; size--)
		crc = __crc32cb(crc, *at++);
	return crc;
}

static int has_instruction(void)
{
	return 1;
}

#else

static uint32_t by_processor(uint32_t crc, const unsigned char *at, size_t size)
{
	return by_table(crc, at, size);
}

static int has_instruction(void)
{
	return 0;
}

#endif

uint32_t lcp_sum(uint32_t sum, const void *data, size_t size)
{
	return ~(has_instruction() ? by_processor(~sum, data, size) : by_table(~sum, data, size));
}

int lcp_sum_file(int fd, uint32_t *sum)
{
	void *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	off_t at = 0;
	ssize_t size;

	if (block == MAP_FAILED)
		return -errno;
	*sum = 0;
	while ((size = pread(fd, block, BLOCK, at)) > 0 || (size < 0 && errno == EINTR))
		if (size > 0) {
			*sum = lcp_sum(*sum, block, (size_t)size);
			at += size;
		}
	size = size < 0 ? -errno : 0;
	munmap(block, BLOCK);
	return (int)size;
}
