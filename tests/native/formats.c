/*
 * The launcher's formats, for tests: its readers and writers without a restore.
 *
 *   formats read             a record on stdin: what was read, or why not
 *   formats spoil            a record on stdin: with any bit flipped and at any shorter length it is refused
 *   formats mutate SEED N    a record on stdin: N damaged ones are read, for the sanitizers to see
 *   formats requests SEED N  N requests of random bytes are written, read again and compared
 */
#include "restore/snapshot.c" /* for what is static in them */
#include "restore/record.c"

/* ---- reading ---------------------------------------------------------- */

static void print_text(const struct snapshot *snapshot, const char *name, struct record_text text)
{
	const char *at = snapshot_text(snapshot, text);

	printf(" %s=", name);
	for (uint32_t i = 0; i < text.length; i++)
		printf("%02x", (unsigned char)at[i]);
}

static void print_compared(const struct snapshot *snapshot, const char *name, struct record_list list)
{
	record_for_each(struct record_compared, file, snapshot->record, list) {
		printf("%s %" PRIu64 " %" PRId64 " %u", name, file->size, file->mtime_ns, file->mode);
		print_text(snapshot, "path", file->path);
		putchar('\n');
	}
}

static void print_lists(const struct snapshot *snapshot)
{
	const struct record_facts *facts = snapshot->facts;

	record_for_each(uint32_t, pid, snapshot->record, facts->pids)
		printf("pid %u\n", *pid);
	record_for_each(uint32_t, group, snapshot->record, facts->groups)
		printf("group %u\n", *group);
	record_for_each(struct record_variable, variable, snapshot->record, facts->variables) {
		printf("variable");
		print_text(snapshot, "name", variable->name);
		print_text(snapshot, "value", variable->value);
		putchar('\n');
	}
	record_for_each(struct record_option, option, snapshot->record, facts->options) {
		printf("option %u %u", option->value, option->is_number);
		print_text(snapshot, "name", option->name);
		putchar('\n');
	}
	record_for_each(struct record_memory, part, snapshot->record, facts->memory) {
		printf("memory %" PRIu64, part->size);
		print_text(snapshot, "file", part->file);
		print_text(snapshot, "key", part->key);
		putchar('\n');
	}
	record_for_each(struct record_file, file, snapshot->record, facts->files) {
		printf("file %" PRIu64 " %u %u", file->size, file->sum, file->flags);
		print_text(snapshot, "name", file->name);
		putchar('\n');
	}
	print_compared(snapshot, "mapped", facts->mapped);
	print_compared(snapshot, "source", facts->sources);
	print_compared(snapshot, "directory", facts->directories);
	print_compared(snapshot, "package", facts->packages);
	record_for_each(struct record_read, read, snapshot->record, facts->reads) {
		printf("read %u", read->state);
		print_text(snapshot, "name", read->name);
		print_text(snapshot, "value", read->value);
		putchar('\n');
	}
	record_for_each(struct record_listener, listener, snapshot->record, facts->listeners) {
		printf("listener %u %u %u %u", listener->family, listener->type, listener->port, listener->options);
		print_text(snapshot, "address", listener->address);
		putchar('\n');
	}
}

static void print_facts(const struct snapshot *snapshot)
{
	const struct record_facts *facts = snapshot->facts;
	char **command = lcp_snapshot_command(snapshot);

	for (char **word = command; word && *word; word++) {
		printf("word ");
		for (const char *at = *word; *at; at++)
			printf("%02x", (unsigned char)*at);
		putchar('\n');
	}
	free(command);
	printf("facts %u %" PRIu64 " %" PRId64 " %" PRId64 " %u %u %u %u %u", snapshot->record->program, facts->capabilities,
	       facts->monotonic, facts->boottime, facts->uid, facts->gid, facts->mode, facts->flags,
	       facts->engine);
	print_text(snapshot, "version", facts->version);
	print_text(snapshot, "arch", facts->arch);
	print_text(snapshot, "cpu_flags", facts->cpu_flags);
	print_text(snapshot, "program", facts->program);
	print_text(snapshot, "images_key", facts->images_key);
	print_text(snapshot, "names", facts->names);
	for (int i = 0; i < SLOTS; i++)
		print_text(snapshot, "slot", facts->slots[i]);
	putchar('\n');
	print_lists(snapshot);
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

/* Read a record and do with it what a restore does, in memory of just the right size, so that a step too far is seen. */
static int read_one(const char *data, size_t size, int print)
{
	struct snapshot snapshot = { .path = (char *)"snap", .directory = -1, .size = size };
	struct problem problem = { 0 };
	void *copy = malloc(size);

	setenv("LIBCRIU_PY_ENV_CHECK", "error", 1); /* nothing is to be told on stderr */
	memcpy(copy, data, size);
	snapshot.record = copy;
	snapshot.facts = lcp_record_facts(copy, size, &problem);
	free(lcp_snapshot_command(&snapshot));
	if (snapshot.facts) {
		record_for_each(struct record_memory, part, snapshot.record, snapshot.facts->memory)
			close(lcp_snapshot_open_memory(&snapshot, part, &problem));
		lcp_snapshot_check(&snapshot, NULL, &problem);
	}
	if (print && snapshot.facts)
		print_facts(&snapshot);
	else if (print)
		printf("no: %s\n", problem.text);
	free(copy);
	return snapshot.facts ? 0 : -1;
}

/* Make size and checksums those of what is there, so that what they protect is looked at. */
static void repair(char *data, size_t size)
{
	struct record_header *record = (void *)data;

	if (size < sizeof(*record))
		return;
	memcpy(record->magic, MAGIC, sizeof(record->magic));
	record->format = RECORD_FORMAT;
	record->protocol = REQUEST_PROTOCOL;
	record->size = size;
	if (record->command_size > size - sizeof(*record))
		record->command_size %= (uint32_t)(size - sizeof(*record) + 1);
	record->command_checksum = checksum(data + COMMAND_COVERED, sizeof(*record) - COMMAND_COVERED + record->command_size);
	record->checksum = checksum(data + COVERED, size - COVERED);
}

static int spoil(void)
{
	size_t size, accepted = 0;
	char *data = read_stdin(&size);

	for (size_t i = 0; i < size * 8; i++) {
		data[i / 8] ^= (char)(1 << i % 8);
		accepted += !read_one(data, size, 0);
		data[i / 8] ^= (char)(1 << i % 8);
	}
	for (size_t i = 0; i < size; i++)
		accepted += !read_one(data, i, 0);
	printf("%zu of %zu were accepted\n", accepted, size * 9);
	free(data);
	return accepted != 0;
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
	static const uint32_t pieces[] = { 0, 1, 7, 8, 48, 255, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF };

	for (uint32_t i = chance(6) + 1; i && size; i--) {
		size_t at = chance((uint32_t)size), length = chance(24) + 1;
		uint32_t piece = pieces[chance(sizeof(pieces) / sizeof(*pieces))];

		length = length > size - at ? size - at : length;
		switch (chance(6)) {
		case 0: /* flip a bit */
			text[at] ^= (char)(1 << chance(8));
			break;
		case 1: /* leave something out */
			memmove(text + at, text + at + length, size - at - length);
			size -= length;
			break;
		case 2: /* put something in */
			if (size + length <= room) {
				memmove(text + at + length, text + at, size - at);
				size += length;
			}
			break;
		case 3: /* repeat something elsewhere */
			memmove(text + chance((uint32_t)(size - length + 1)), text + at, length);
			break;
		case 4: /* another number */
			at -= at % sizeof(piece);
			if (at + sizeof(piece) <= size)
				memcpy(text + at, &piece, sizeof(piece));
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
		size_t left;

		memcpy(copy, text, size);
		left = damage(copy, size, room);
		if (i % 4)
			repair(copy, left);
		readable += !read_one(copy, left, 0);
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
	int good = !lcp_request_encode(&text, request), i = 0;
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

static int read_stdin_as_one(void)
{
	size_t size;
	char *data = read_stdin(&size);

	read_one(data, size, 1);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "read"))
		return read_stdin_as_one();
	if (argc == 2 && !strcmp(argv[1], "spoil"))
		return spoil();
	if (argc != 4)
		return 2;
	state = strtoull(argv[2], NULL, 10) * 2 + 1;
	return !strcmp(argv[1], "mutate") ? mutate(atoi(argv[3])) : requests(atoi(argv[3]));
}
