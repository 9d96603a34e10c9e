/*
 * The launch record of a snapshot: flat, versioned, checksummed, and used as it is mapped. Its writer is
 * libcriu_py/snapshot/record.py.
 */
#ifndef LCP_RECORD_H
#define LCP_RECORD_H

#include <stddef.h>
#include <stdint.h>

struct problem;

#define RECORD_FORMAT 7
#define MEMORY_FILES 49 /* from which memory may be mapped: memory.img, and those of a store */

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are little-endian"
#endif

/* Offsets are from the beginning of the record; those of lists are multiples of 8. Rows begin with their texts. */
struct record_text {
	uint32_t offset, length; /* a NUL is behind it */
};

struct record_list {
	uint32_t offset, count;
};

struct record_header {
	char magic[8];
	uint32_t checksum;         /* CRC-32 of all that follows */
	uint32_t format;
	uint64_t size;             /* of the record */
	uint32_t protocol;         /* of the request that copies understand */
	uint32_t command_checksum; /* of what follows, to the end of the command */
	uint32_t command_size, command_count;
	uint32_t program;          /* what the main program is; 0: it checkpointed itself */
	uint32_t facts;            /* where they are */
	char command[];            /* words, each with a NUL */
};

enum record_flags {
	RECORD_REDUCED_BOUNDING = 1,
	RECORD_SESSION_LEADER = 2,
	RECORD_MAPS_CODE = 4,
	RECORD_WARNS = 8,
	RECORD_ONE_AT_A_TIME = 16, /* for a moment, criu makes files that have the same names in all restores */
};
enum record_engine { RECORD_CRIU, RECORD_NATIVE, RECORD_ENGINES };
enum record_slot { SLOT_STDIN, SLOT_STDOUT, SLOT_STDERR, SLOT_REQUEST, SLOTS };

struct record_facts {
	struct record_text version;  /* of the package */
	struct record_text arch, cpu_flags, program, images_key, slots[SLOTS];
	struct record_text names;    /* of modules at the top, each with a slash before and behind it */
	struct record_list pids, groups; /* uint32_t; the first pid is the program's */
	struct record_list variables, options, memory, files, mapped, sources;
	struct record_list directories, packages, reads, listeners;
	uint64_t capabilities;
	int64_t monotonic, boottime; /* 0: those of the machine */
	uint32_t uid, gid;
	uint32_t mode;               /* of the dump: enum mode, of which auto is none */
	uint32_t flags;
	uint32_t engine;             /* what dumped it and restores it: enum record_engine */
	uint32_t unused;
};

struct record_variable {
	struct record_text name, value;
};

enum read_state { READ_UNSET, READ_VALUE, READ_HASH, READ_DEFAULT };

/*
 * A variable that the program has read: its value or, in hexadecimal, the hash of that; or the one that it has set where it
 * found none.
 */
struct record_read {
	struct record_text name, value;
	uint32_t state, unused;
};

struct record_option {
	struct record_text name;
	uint32_t value, is_number;
};

struct record_memory {
	struct record_text file, key;
	uint64_t size;
};

enum record_file_flags { RECORD_LARGE = 1 };

struct record_file {
	struct record_text name;
	uint64_t size;
	uint32_t sum;                /* CRC-32C */
	uint32_t flags;              /* whether it is read at each start, or where it has been touched only */
};

#define RECORD_ABSENT UINT64_MAX /* the size of a file that was looked for, and not there */

/* A file that was mapped, or of a module or package; a directory of sys.path. */
struct record_compared {
	struct record_text path;
	uint64_t size;               /* of a directory, a digest of what could be imported from there */
	int64_t mtime_ns;
	uint32_t mode;               /* 0: any */
	uint32_t unused;
};

enum record_listener_options {
	LISTENER_REUSE_ADDRESS = 1,
	LISTENER_REUSE_PORT = 2,
	LISTENER_ONLY_IPV6 = 4,
};

/* An address that a socket has, which one copy at a time can have. */
struct record_listener {
	struct record_text address;  /* a numeric host, or a path; an abstract name begins with @ */
	uint32_t family, type, port, options;
};

/* Return the facts of a record whose offsets are all valid; else NULL, with the reason added to the problem. */
const struct record_facts *lcp_record_facts(const struct record_header *record, size_t size, struct problem *problem);
/* Whether the command is undamaged, even if the rest is not. */
int lcp_record_has_command(const struct record_header *record, size_t size);

static inline const char *record_text(const struct record_header *record, struct record_text text)
{
	return (const char *)record + text.offset;
}

#define record_for_each(type, item, record, list) \
	for (const type *item = (const void *)((const char *)(record) + (list).offset), \
	     *item##_end = item + (list).count; item < item##_end; item++)

#endif
