#include "json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 32
#define BLOCK_VALUES 256
#define SAFE_DIGITS 18 /* of a number that cannot be too large */
#define EACH_BYTE 0x0101010101010101u

struct json_block {
	struct json_block *next;
	size_t used;
	struct json values[BLOCK_VALUES];
};

struct parser {
	struct json_document *document;
	char *text, *end, *at;
};

static int refuse(struct parser *p, const char *error)
{
	p->document->error = error;
	p->document->offset = (size_t)(p->at - p->text);
	return -1;
}

static struct json *new_value(struct parser *p)
{
	struct json_block *block = p->document->blocks;

	if (!block || block->used == BLOCK_VALUES) {
		block = malloc(sizeof(*block));
		if (!block)
			return NULL;
		block->used = 0;
		block->next = p->document->blocks;
		p->document->blocks = block;
	}
	memset(&block->values[block->used], 0, sizeof(struct json));
	return &block->values[block->used++];
}

static void skip_space(struct parser *p)
{
	while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
		p->at++;
}

/* The text ends with a NUL, so a look at the next byte is always allowed. */
static int accept(struct parser *p, const char *word)
{
	size_t length = strlen(word);

	if ((size_t)(p->end - p->at) < length || memcmp(p->at, word, length))
		return 0;
	p->at += length;
	return 1;
}

static int accept_byte(struct parser *p, char byte)
{
	if (p->at >= p->end || *p->at != byte)
		return 0;
	p->at++;
	return 1;
}

/* ---- strings ---------------------------------------------------------- */

static int hexadecimal(struct parser *p, uint32_t *value)
{
	*value = 0;
	if (p->end - p->at < 4)
		return refuse(p, "a \\u without four hexadecimal digits");
	for (int i = 0; i < 4; i++, p->at++) {
		char c = *p->at;

		*value <<= 4;
		if (c >= '0' && c <= '9')
			*value |= (uint32_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value |= (uint32_t)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			*value |= (uint32_t)(c - 'A' + 10);
		else
			return refuse(p, "a \\u without four hexadecimal digits");
	}
	return 0;
}

static char *put_code_point(char *out, uint32_t code)
{
	if (code < 0x80) {
		*out++ = (char)code;
	} else if (code < 0x800) {
		*out++ = (char)(0xC0 | code >> 6);
		*out++ = (char)(0x80 | (code & 0x3F));
	} else if (code < 0x10000) {
		*out++ = (char)(0xE0 | code >> 12);
		*out++ = (char)(0x80 | (code >> 6 & 0x3F));
		*out++ = (char)(0x80 | (code & 0x3F));
	} else {
		*out++ = (char)(0xF0 | code >> 18);
		*out++ = (char)(0x80 | (code >> 12 & 0x3F));
		*out++ = (char)(0x80 | (code >> 6 & 0x3F));
		*out++ = (char)(0x80 | (code & 0x3F));
	}
	return out;
}

/* What follows a \u; the result is never longer than the escape. */
static int unicode_escape(struct parser *p, char **out)
{
	uint32_t code, low;

	if (hexadecimal(p, &code))
		return -1;
	if (code == 0)
		return refuse(p, "a NUL in a string");
	if (code >= 0xD800 && code <= 0xDBFF) {
		if (!accept(p, "\\u"))
			return refuse(p, "half a surrogate pair");
		if (hexadecimal(p, &low))
			return -1;
		if (low < 0xDC00 || low > 0xDFFF)
			return refuse(p, "half a surrogate pair");
		code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
	} else if (code >= 0xDC80 && code <= 0xDCFF) {
		*(*out)++ = (char)(code - 0xDC00); /* a byte that was no UTF-8, PEP 383 */
		return 0;
	} else if (code >= 0xDC00 && code <= 0xDFFF) {
		return refuse(p, "half a surrogate pair");
	}
	*out = put_code_point(*out, code);
	return 0;
}

/* One well-formed sequence of UTF-8 (RFC 3629), taken over as it is. */
static int utf8_sequence(struct parser *p, char **out)
{
	unsigned char first = (unsigned char)*p->at, low = 0x80, high = 0xBF;
	int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;

	if (first < 0xC2 || first > 0xF4)
		return refuse(p, "a string that is not UTF-8");
	if (first == 0xE0)
		low = 0xA0;
	else if (first == 0xED)
		high = 0x9F;
	else if (first == 0xF0)
		low = 0x90;
	else if (first == 0xF4)
		high = 0x8F;
	if (p->end - p->at <= more)
		return refuse(p, "a string that is not UTF-8");
	*(*out)++ = *p->at++;
	for (; more; more--, low = 0x80, high = 0xBF) {
		unsigned char c = (unsigned char)*p->at;

		if (c < low || c > high)
			return refuse(p, "a string that is not UTF-8");
		*(*out)++ = *p->at++;
	}
	return 0;
}

static int escape(struct parser *p, char **out)
{
	static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
	const char *letter;

	if (accept_byte(p, 'u'))
		return unicode_escape(p, out);
	letter = p->at < p->end && *p->at ? strchr(letters, *p->at) : NULL;
	if (!letter)
		return refuse(p, "an unknown escape in a string");
	*(*out)++ = meanings[letter - letters];
	p->at++;
	return 0;
}

/* The high bit of each byte of a word that is below `limit`, which is at most 128; bytes that have it set are not. */
static uint64_t bytes_below(uint64_t word, uint64_t limit)
{
	return (word - EACH_BYTE * limit) & ~word & EACH_BYTE * 0x80;
}

/* How many bytes from here on stand for themselves: no quotation mark, no escape, no control character, and ASCII. */
static size_t plain_bytes(const struct parser *p)
{
	const char *at = p->at;

	for (; p->end - at >= (ptrdiff_t)sizeof(uint64_t); at += sizeof(uint64_t)) {
		uint64_t word, marks;

		memcpy(&word, at, sizeof(word));
		marks = (word & EACH_BYTE * 0x80) | bytes_below(word, 0x20) | bytes_below(word ^ EACH_BYTE * '"', 1) |
			bytes_below(word ^ EACH_BYTE * '\\', 1);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
		if (marks) /* a borrow may mark a byte behind one that is marked, never one before */
			return (size_t)(at - p->at) + (size_t)__builtin_ctzll(marks) / 8;
#else
		if (marks)
			break;
#endif
	}
	while (at < p->end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' && *at != '\\')
		at++;
	return (size_t)(at - p->at);
}

/* In place: the NUL at its end takes at most the place of the quotation mark. */
static int parse_string(struct parser *p, const char **string)
{
	char *out;

	*string = p->at;
	p->at += plain_bytes(p);
	out = p->at;
	while (p->at < p->end) {
		unsigned char c = (unsigned char)*p->at;

		if (c == '"') {
			p->at++;
			*out = '\0';
			return 0;
		}
		if (c == '\\') {
			p->at++;
			if (escape(p, &out))
				return -1;
		} else if (c < 0x20) {
			return refuse(p, "a control character in a string");
		} else if (c < 0x80) {
			*out++ = *p->at++;
		} else if (utf8_sequence(p, &out)) {
			return -1;
		}
	}
	return refuse(p, "a string without its end");
}

/* ---- numbers ---------------------------------------------------------- */

static int digits(struct parser *p)
{
	char *from = p->at;

	while (p->at < p->end && *p->at >= '0' && *p->at <= '9')
		p->at++;
	return p->at > from;
}

/* Reals are checked and not kept: nothing here asks for one. */
static int parse_number(struct parser *p, struct json *value)
{
	int negative = accept_byte(p, '-');
	char *from = p->at;
	uint64_t number = 0, limit = (uint64_t)INT64_MAX + (uint64_t)negative;

	if (!digits(p) || (*from == '0' && p->at - from > 1))
		return refuse(p, "a malformed number");
	value->type = JSON_INTEGER;
	for (char *digit = from; digit < p->at; digit++) {
		if (digit - from >= SAFE_DIGITS && number > (limit - (uint64_t)(*digit - '0')) / 10) {
			value->type = JSON_REAL; /* too large to be anything that is asked for */
			break;
		}
		number = number * 10 + (uint64_t)(*digit - '0');
	}
	if (value->type == JSON_INTEGER)
		value->integer = negative ? (int64_t)(0 - number) : (int64_t)number;
	if (accept_byte(p, '.')) {
		value->type = JSON_REAL;
		if (!digits(p))
			return refuse(p, "a malformed number");
	}
	if (accept_byte(p, 'e') || accept_byte(p, 'E')) {
		value->type = JSON_REAL;
		if (!accept_byte(p, '-'))
			accept_byte(p, '+');
		if (!digits(p))
			return refuse(p, "a malformed number");
	}
	if (value->type == JSON_REAL)
		value->integer = 0;
	return 0;
}

/* ---- values ----------------------------------------------------------- */

static int parse_value(struct parser *p, struct json *value, int depth);

static int member_name(struct parser *p, const struct json *object, struct json *member)
{
	skip_space(p);
	if (!accept_byte(p, '"'))
		return refuse(p, "a member without a name");
	if (parse_string(p, &member->name))
		return -1;
	/* What two readers could take for different things is refused. Large objects are ours alone. */
	if (object->count < 64 && json_get(object, member->name))
		return refuse(p, "two members of one name");
	skip_space(p);
	return accept_byte(p, ':') ? 0 : refuse(p, "a name without a colon");
}

static int parse_members(struct parser *p, struct json *container, int depth)
{
	const char end = container->type == JSON_OBJECT ? '}' : ']';
	struct json **place = &container->first;

	if (depth >= MAX_DEPTH)
		return refuse(p, "values that are nested too deeply");
	skip_space(p);
	if (accept_byte(p, end))
		return 0;
	do {
		struct json *member = new_value(p);

		if (!member)
			return refuse(p, "no memory is left");
		if (container->type == JSON_OBJECT && member_name(p, container, member))
			return -1;
		if (parse_value(p, member, depth + 1))
			return -1;
		*place = member;
		place = &member->next;
		container->count++;
		skip_space(p);
	} while (accept_byte(p, ','));
	return accept_byte(p, end) ? 0 : refuse(p, "an array or object without its end");
}

/* One of the three names that JSON has. */
static int parse_name(struct parser *p, const char *name, struct json *value, enum json_type type, int integer)
{
	value->type = type;
	value->integer = integer;
	return accept(p, name) ? 0 : refuse(p, "a malformed number");
}

static int parse_value(struct parser *p, struct json *value, int depth)
{
	skip_space(p);
	switch (*p->at) {
	case '{':
		p->at++;
		value->type = JSON_OBJECT;
		return parse_members(p, value, depth);
	case '[':
		p->at++;
		value->type = JSON_ARRAY;
		return parse_members(p, value, depth);
	case '"':
		p->at++;
		value->type = JSON_STRING;
		return parse_string(p, &value->string);
	case 'n': return parse_name(p, "null", value, JSON_NULL, 0);
	case 't': return parse_name(p, "true", value, JSON_BOOL, 1);
	case 'f': return parse_name(p, "false", value, JSON_BOOL, 0);
	default: return parse_number(p, value);
	}
}

int json_parse(struct json_document *document, char *text, size_t size)
{
	struct parser p = { document, text, text + size, text };
	struct json *root;

	memset(document, 0, sizeof(*document));
	*p.end = '\0';
	root = new_value(&p);
	if (!root)
		return refuse(&p, "no memory is left");
	if (parse_value(&p, root, 0))
		return -1;
	skip_space(&p);
	if (p.at != p.end)
		return refuse(&p, "something after its end");
	document->root = root;
	return 0;
}

void json_free(struct json_document *document)
{
	while (document->blocks) {
		struct json_block *next = document->blocks->next;

		free(document->blocks);
		document->blocks = next;
	}
	document->root = NULL;
}

/* ---- access ----------------------------------------------------------- */

const struct json *json_typed(const struct json *value, enum json_type type)
{
	return value && value->type == type ? value : NULL;
}

const struct json *json_first(const struct json *container)
{
	return json_typed(container, JSON_OBJECT) || json_typed(container, JSON_ARRAY) ? container->first : NULL;
}

const struct json *json_get(const struct json *object, const char *name)
{
	if (!json_typed(object, JSON_OBJECT))
		return NULL;
	for (const struct json *member = object->first; member; member = member->next)
		if (*member->name == *name && !strcmp(member->name, name))
			return member;
	return NULL;
}

const char *json_string(const struct json *value)
{
	return json_typed(value, JSON_STRING) ? value->string : NULL;
}

int64_t json_integer(const struct json *value, int64_t otherwise)
{
	return json_typed(value, JSON_INTEGER) ? value->integer : otherwise;
}
