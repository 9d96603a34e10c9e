/*
 * A strict reader of JSON (RFC 8259) for the manifest: no extensions, no
 * duplicate keys, no strings that a path cannot be.
 */
#ifndef LIBCRIU_PY_JSON_H
#define LIBCRIU_PY_JSON_H

#include <stddef.h>
#include <stdint.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_INTEGER, JSON_REAL, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
	enum json_type type;
	uint32_t count;      /* of the members of an array or object */
	const char *name;    /* in an object, else NULL */
	struct json *next;   /* the following member of the same array or object */
	union {
		int64_t integer; /* of a bool too */
		const char *string;
		struct json *first;
	};
};

struct json_document {
	struct json *root;
	struct json_block *blocks;
	const char *error;   /* why there is no root */
	size_t offset;       /* where in the text that was found */
};

/*
 * Read a text of `size` bytes, which is changed and must live as long as the
 * document; one byte more must be there. Strings become bytes as Python's
 * os.fsencode() makes them: UTF-8, and a code point U+DC80 to U+DCFF is the
 * byte it stands for. Returns 0, or -1 with `error` and `offset` set.
 */
int json_parse(struct json_document *document, char *text, size_t size);
void json_free(struct json_document *document);

/* The member of an object, or NULL; so is that of NULL. */
const struct json *json_get(const struct json *object, const char *name);
/* The value where it is of that type, else NULL or the default. */
const char *json_string(const struct json *value);
int64_t json_integer(const struct json *value, int64_t otherwise);
const struct json *json_typed(const struct json *value, enum json_type type);

/* The first member of a container; NULL where there is none, or nothing that could have one. */
const struct json *json_first(const struct json *container);

#define json_for_each(member, container) \
	for (const struct json *member = json_first(container); member; member = member->next)

#endif
