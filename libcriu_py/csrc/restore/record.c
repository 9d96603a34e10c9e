#include "restore/record.h"
#include <inttypes.h>
#include <string.h>

#include "restore/problem.h"
#include "restore/request.h"

#define MAGIC "\x93launch\n"
#define MODES_OF_DUMPS 4
#define COVERED offsetof(struct record_header, format)
#define COMMAND_COVERED offsetof(struct record_header, command_size)

_Static_assert(sizeof(struct record_header) == 48 && sizeof(struct record_facts) == 224, "as in snapshot/record.py");

/* ---- checksums -------------------------------------------------------- */

/* CRC-32 as of zlib: `table[n]` has what a byte comes to when n more zeros have followed it. */
static uint32_t table[8][256];

static void make_tables(void)
{
	uint32_t crc = 1;

	for (int i = 128; i; i /= 2) {
		crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
		for (int j = 0; j < 256; j += 2 * i)
			table[0][i + j] = crc ^ table[0][j];
	}
	for (int n = 1; n < 8; n++)
		for (int i = 0; i < 256; i++)
			table[n][i] = table[n - 1][i] >> 8 ^ table[0][table[n - 1][i] & 0xFF];
}

static uint32_t checksum(const void *data, size_t size)
{
	const unsigned char *at = data;
	uint32_t crc = ~0u;
	uint64_t word;

	if (!table[0][1])
		make_tables();
	for (; size >= sizeof(word); size -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		word ^= crc;
		crc = table[7][word & 0xFF] ^ table[6][word >> 8 & 0xFF] ^ table[5][word >> 16 & 0xFF] ^
		      table[4][word >> 24 & 0xFF] ^ table[3][word >> 32 & 0xFF] ^ table[2][word >> 40 & 0xFF] ^
		      table[1][word >> 48 & 0xFF] ^ table[0][word >> 56];
	}
	for (; size; size--)
		crc = crc >> 8 ^ table[0][(crc ^ *at++) & 0xFF];
	return ~crc;
}

/* ---- contents --------------------------------------------------------- */

static int is_record(const struct record_header *record, size_t size)
{
	return size >= sizeof(*record) && !memcmp(record->magic, MAGIC, sizeof(record->magic));
}

int lcp_record_has_command(const struct record_header *record, size_t size)
{
	const char *at = record->command, *end;
	uint32_t count = 0;

	if (!is_record(record, size) || record->command_size > size - sizeof(*record) ||
	    checksum((const char *)record + COMMAND_COVERED,
		     sizeof(*record) - COMMAND_COVERED + record->command_size) != record->command_checksum)
		return 0;
	for (end = at + record->command_size; at < end; count++) {
		at = memchr(at, '\0', (size_t)(end - at));
		if (!at++)
			return 0;
	}
	return count && count == record->command_count;
}

struct view {
	const struct record_header *record;
	size_t size;
};

static int good_text(const struct view *view, struct record_text text)
{
	return text.offset < view->size && text.length < view->size - text.offset &&
	       !record_text(view->record, text)[text.length];
}

/* Whether a list is there, and so are as many texts of each of its rows. */
static int good_rows(const struct view *view, struct record_list list, size_t item, int texts)
{
	const struct record_text *row = (const void *)((const char *)view->record + list.offset);

	if (list.offset % 8 || list.offset > view->size || list.count > (view->size - list.offset) / item)
		return 0;
	for (uint32_t i = 0; i < list.count; i++, row += item / sizeof(*row))
		for (int j = 0; j < texts; j++)
			if (!good_text(view, row[j]))
				return 0;
	return 1;
}

static int is_sound(const struct view *view, const struct record_facts *facts)
{
	return facts->mode < MODES_OF_DUMPS && facts->engine < RECORD_ENGINES && facts->memory.count <= MEMORY_FILES &&
	       good_rows(view, facts->pids, sizeof(uint32_t), 0) &&
	       good_rows(view, facts->groups, sizeof(uint32_t), 0) &&
	       good_rows(view, facts->variables, sizeof(struct record_variable), 2) &&
	       good_rows(view, facts->options, sizeof(struct record_option), 1) &&
	       good_rows(view, facts->memory, sizeof(struct record_memory), 2) &&
	       good_rows(view, facts->files, sizeof(struct record_file), 1) &&
	       good_rows(view, facts->mapped, sizeof(struct record_compared), 1) &&
	       good_rows(view, facts->sources, sizeof(struct record_compared), 1) &&
	       good_rows(view, facts->directories, sizeof(struct record_compared), 1) &&
	       good_rows(view, facts->packages, sizeof(struct record_compared), 1) &&
	       good_rows(view, facts->reads, sizeof(struct record_read), 2) &&
	       good_rows(view, facts->listeners, sizeof(struct record_listener), 1);
}

/* The facts themselves are a list of one row; NULL where they are not there. */
static const struct record_facts *find_facts(const struct view *view)
{
	struct record_list list = { view->record->facts, 1 };
	size_t texts = offsetof(struct record_facts, pids) / sizeof(struct record_text);

	return good_rows(view, list, sizeof(struct record_facts), (int)texts) ?
		       (const void *)((const char *)view->record + list.offset) : NULL;
}

const struct record_facts *lcp_record_facts(const struct record_header *record, size_t size, struct problem *problem)
{
	const struct record_facts *facts;
	struct view view = { record, size };

	if (!is_record(record, size)) {
		lcp_problem_add(problem, "is not a launch record of libcriu_py");
	} else if (record->size != size) {
		lcp_problem_add(problem, "is damaged (%zu bytes instead of %" PRIu64 ")", size, record->size);
	} else if (checksum((const char *)record + COVERED, size - COVERED) != record->checksum) {
		lcp_problem_add(problem, "is damaged (its checksum differs)");
	} else if (record->format != RECORD_FORMAT) {
		lcp_problem_add(problem, "has format %u, this version of libcriu_py reads format %d", record->format,
				RECORD_FORMAT);
	} else if (!lcp_record_has_command(record, size) || !(facts = find_facts(&view)) || !is_sound(&view, facts)) {
		lcp_problem_add(problem, "is damaged (something that it names is not in it)");
	} else if (record->protocol != REQUEST_PROTOCOL) {
		lcp_problem_add(
			problem,
			"is of libcriu_py %s, whose copies speak protocol %u, and this version speaks protocol %d",
			record_text(record, facts->version), record->protocol, REQUEST_PROTOCOL);
	} else {
		return facts;
	}
	lcp_problem_add(problem, "; make the snapshot anew");
	return NULL;
}
