/*
 * The launcher's formats, for tests: its readers and writers without a restore.
 *
 *   formats read             texts from stdin, each ended by a NUL: one line for each, what was read or why not
 *   formats mutate SEED N    a manifest on stdin: N damaged ones are read, for the sanitizers to see
 *   formats requests SEED N  N requests of random bytes are written, read again and compared
 */
#include "manifest.c" /* for what is static in it */
#include "request.h"

#include <stdint.h>

/* ---- reading ---------------------------------------------------------- */

static void print_text(const char *text)
{
	putchar('"');
	for (; *text; text++)
		printf("%02x", (unsigned char)*text);
	putchar('"');
}

static void print_value(const struct json *value)
{
	static const char ends[][2] = { { '[', ']' }, { '{', '}' } };
	const char *separator = "";

	switch (value->type) {
	case JSON_NULL: printf("null"); return;
	case JSON_BOOL: printf(value->integer ? "true" : "false"); return;
	case JSON_INTEGER: printf("%lld", (long long)value->integer); return;
	case JSON_REAL: printf("real"); return;
	case JSON_STRING: print_text(value->string); return;
	default: break;
	}
	putchar(ends[value->type == JSON_OBJECT][0]);
	json_for_each(member, value) {
		printf("%s", separator);
		if (value->type == JSON_OBJECT) {
			print_text(member->name);
			putchar(':');
		}
		print_value(member);
		separator = ",";
	}
	putchar(ends[value->type == JSON_OBJECT][1]);
}

static char *read_stdin(size_t *size)
{
	char *text = NULL;
	size_t room = 0;

	*size = 0;
	do {
		room = room * 2 + 65536;
		text = realloc(text, room + 1);
		*size += fread(text + *size, 1, room - *size, stdin);
	} while (*size == room);
	return text;
}

/* In memory of just the right size, so that a step too far is seen. */
static int read_one(const char *text, size_t size, int print)
{
	struct json_document document;
	char *copy = malloc(size + 1);
	int result;

	memcpy(copy, text, size);
	result = json_parse(&document, copy, size);
	if (print && result)
		printf("no: %s", document.error);
	else if (print)
		print_value(document.root);
	if (!result) {
		struct snapshot snapshot = { .path = (char *)"snap", .directory = -1, .document = document };
		struct problem problem;

		if (!check_content(&snapshot, &problem)) {
			snapshot.manifest = document.root;
			snapshot_command(&snapshot);
			for (const struct json *part = NULL; (part = snapshot_memory_file(&snapshot, part));)
				close(snapshot_open_memory(&snapshot, part, &problem));
			snapshot_check(&snapshot, 1, &problem);
		}
	}
	json_free(&document);
	free(copy);
	return result;
}

/* ---- chance ----------------------------------------------------------- */

static uint64_t state;

static uint32_t chance(uint32_t below)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((state >> 33) % below);
}

static size_t damage(char *text, size_t size, size_t room)
{
	static const char *const pieces[] = { "\"", "\\u", "\\udc80", "\\ud800", "[", "]", "{", "}", ",", ":", "-", "0", "null",
					      "99999999999999999999", "1e5", "\xff", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x01" };

	for (uint32_t i = chance(6) + 1; i && size; i--) {
		size_t at = chance((uint32_t)size), length = chance(24) + 1;
		const char *piece = pieces[chance(sizeof(pieces) / sizeof(*pieces))];

		length = length > size - at ? size - at : length;
		switch (chance(5)) {
		case 0: /* flip a bit */
			text[at] ^= (char)(1 << chance(8));
			break;
		case 1: /* leave something out */
			memmove(text + at, text + at + length, size - at - length);
			size -= length;
			break;
		case 2: /* put something in */
			length = strlen(piece);
			if (size + length <= room) {
				memmove(text + at + length, text + at, size - at);
				memcpy(text + at, piece, length);
				size += length;
			}
			break;
		case 3: /* repeat something elsewhere */
			memmove(text + chance((uint32_t)(size - length + 1)), text + at, length);
			break;
		default: /* end early */
			if (!chance(8))
				size = at;
		}
	}
	return size;
}

static int mutate(int count)
{
	size_t size, room;
	char *text = read_stdin(&size), *copy;
	int readable = 0;

	room = size + 1024;
	copy = malloc(room);
	for (int i = 0; i < count; i++) {
		memcpy(copy, text, size);
		readable += !read_one(copy, damage(copy, size, room), 0);
	}
	printf("%d of %d could be read\n", readable, count);
	free(copy);
	free(text);
	return 0;
}

/* ---- requests --------------------------------------------------------- */

static char *random_text(int avoid)
{
	size_t size = chance(60);
	char *text = malloc(size + 1);

	for (size_t i = 0; i < size; i++) {
		do
			text[i] = (char)(chance(255) + 1);
		while (text[i] == avoid);
	}
	text[size] = '\0';
	return text;
}

/* The next field of a request, NULL where there is none. */
static const char *next_field(const struct text *text, size_t *at)
{
	const char *field = text->data + *at, *end = *at < text->size ? memchr(field, '\0', text->size - *at) : NULL;

	if (!end)
		return NULL;
	*at += (size_t)(end - field) + 1;
	return field;
}

static int check_request(const struct request *request)
{
	const char *field[16], *entry;
	struct text text = { 0 };
	int good = !request_encode(&text, request), i = 0;
	size_t at = 0;

	for (int n = 0; n < 16; n++) {
		field[n] = next_field(&text, &at);
		good = good && field[n];
	}
	good = good && !strcmp(field[13], request->cwd) && !strcmp(field[14], request->snapshot);
	for (; good && request->argv[i]; i++) {
		entry = next_field(&text, &at);
		good = entry && !strcmp(entry, request->argv[i]);
	}
	good = good && atoi(field[15]) == i;
	/* Those of the environment come in its order, but for what has no value, or the name of another. */
	for (i = 0; good && (entry = next_field(&text, &at)); i++) {
		while (request->env[i] && strcmp(request->env[i], entry))
			i++;
		good = request->env[i] && strchr(entry, '=');
	}
	good = good && at == text.size;
	free(text.data);
	return good;
}

static int requests(int count)
{
	for (int i = 0; i < count; i++) {
		char *argv[5] = { 0 }, *env[5] = { 0 }, *cwd = random_text(0), *path = random_text(0);
		struct request request = { .argv = argv, .env = env, .cwd = cwd, .snapshot = path };
		int good;

		for (int j = 0; j < 4; j++) {
			argv[j] = random_text(0);
			env[j] = random_text(0);
		}
		good = check_request(&request);
		for (int j = 0; j < 4; j++) {
			free(argv[j]);
			free(env[j]);
		}
		free(cwd);
		free(path);
		if (!good) {
			printf("request %d is not what was written\n", i);
			return 1;
		}
	}
	printf("%d requests\n", count);
	return 0;
}

static int read_all_of_stdin(void)
{
	size_t size, next;
	char *text = read_stdin(&size);

	text[size] = '\0';
	for (size_t at = 0; at < size; at = next + 1) {
		next = at + strlen(text + at);
		read_one(text + at, next - at, 1);
		putchar('\n');
	}
	free(text);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "read"))
		return read_all_of_stdin();
	if (argc != 4)
		return 2;
	state = strtoull(argv[2], NULL, 10) * 2 + 1;
	return !strcmp(argv[1], "mutate") ? mutate(atoi(argv[3])) : requests(atoi(argv[3]));
}
