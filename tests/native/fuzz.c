/*
 * A target for fuzzing what the launcher reads. The first byte of an input says what the rest is:
 *
 *   b  a launch record          c  the same, whose size and checksums are made right first
 *   s  a launch script          l  a log of criu
 *   r  a request: path, working directory and any number of arguments and variables, each ended by a NUL, which are
 *      written, read again and compared
 *   p  a plan               v  a plan, whose list of functions of another kernel's vdso is redirected
 *
 * Built with -fsanitize=fuzzer -DLIBFUZZER it is a target of libFuzzer. Otherwise it makes its inputs itself:
 *
 *   fuzz SECONDS LAST FILE...  damage the files by chance; the input in work is kept in LAST
 *   fuzz FILE                  try one input again
 */
#define main formats_main
#include "formats.c"
#undef main
#include "become/reader.h"
#include "become/vdso.h"
#include "restore/refusal.c"
#include "launcher/script.c"

#include <sys/mman.h>
#include <time.h>

#define LARGEST 65536
#define WORDS 64

int lcp_mode_of(const char *name)
{
	return !strcmp(name, "auto") - 1; /* place.c, without what it needs */
}

/* ---- what is read ----------------------------------------------------- */

static void try_script(char *text, size_t size)
{
	struct launch launch = { .script = "somewhere/script" };
	struct script *script = calloc(1, sizeof(*script));
	struct problem problem;

	script->text = text;
	parse_script(script, &launch, size, &problem);
	free(script->command);
	free(script->directory);
	free(script);
}

static void try_log(char *text)
{
	char *reason = first_error(text);

	if (reason && strlen(reason) > LARGEST)
		abort();
}

/* In memory of just the right size, which must not be changed. What is accepted is used as the loader does. */
static void try_plan(const char *text, size_t size, int with_vdso)
{
	struct plan_header *plan = malloc(size);
	uint64_t sum = 0, at;
	struct why why;
	int fd;

	memcpy(plan, text, size);
	if (!lcp_plan_fault(plan, size)) {
		plan_for_each(struct plan_file, file, plan, plan->files)
			sum += strlen(plan_at(plan, file->path.offset));
		plan_for_each(struct plan_area, area, plan, plan->areas)
			if (area->file != PLAN_NO_FILE)
				sum += ((const struct plan_file *)plan_at(plan, plan->files.offset))[area->file].size;
		plan_for_each(struct plan_descriptor, row, plan, plan->descriptors)
			sum += (uint64_t)((const char *)plan_at(plan, row->data.offset))[row->data.length];
		fd = with_vdso && plan->vdso_start ? lcp_vdso_make(plan, 1 << 30, &at, &why) : -1;
		if (fd >= 0)
			close(fd);
	}
	if (sum == 1 || memcmp(plan, text, size))
		abort();
	free(plan);
}

static void try_request(char *text, size_t size)
{
	char *words[WORDS + 1] = { 0 }, *nothing[] = { NULL };
	struct request request = { .argv = nothing, .env = nothing, .cwd = "", .snapshot = "" };
	int count = 0;

	for (char *at = text; at < text + size && count < WORDS; at += strlen(at) + 1)
		words[count++] = at;
	if (count > 0)
		request.snapshot = words[0];
	if (count > 1)
		request.cwd = words[1];
	if (count > 2)
		request.argv = request.env = words + 2;
	if (!check_request(&request))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t rest = size ? size - 1 : 0;
	char *text;

	if (!size)
		return -1;
	if (*data == 'b') {
		read_one((const char *)data + 1, rest, 0);
		return 0;
	}
	text = malloc(rest + 1); /* just the right size, so that a step too far is seen */
	memcpy(text, data + 1, rest);
	text[rest] = '\0';
	if (*data == 'c') {
		repair(text, rest);
		read_one(text, rest, 0);
	} else if (*data == 's') {
		try_script(text, rest);
	} else if (*data == 'l') {
		try_log(text);
	} else if (*data == 'r') {
		try_request(text, rest);
	} else if (*data == 'p' || *data == 'v') {
		try_plan(text, rest, *data == 'v');
	}
	free(text);
	return strchr("cslrpv", *data) ? 0 : -1;
}

#ifndef LIBFUZZER

/* ---- inputs ----------------------------------------------------------- */

struct input {
	char data[LARGEST];
	size_t size;
};

static int read_input(struct input *input, const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file) {
		perror(path);
		return -1;
	}
	input->size = fread(input->data, 1, sizeof(input->data), file);
	fclose(file);
	return 0;
}

/* What is written to a shared mapping is in the file even when the process is gone. */
static struct input *open_last(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	void *last = fd < 0 || ftruncate(fd, LARGEST) ? MAP_FAILED :
						       mmap(NULL, LARGEST, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (last == MAP_FAILED) {
		perror(path);
		return NULL;
	}
	return last;
}

static int fuzz(int seconds, const char *path, char **files, uint32_t count)
{
	struct input *inputs = calloc(count, sizeof(*inputs)), *last = open_last(path);
	time_t end = time(NULL) + seconds;
	unsigned long tried = 0;

	for (uint32_t i = 0; i < count; i++)
		if (!last || !inputs || read_input(&inputs[i], files[i]))
			return 2;
	while (time(NULL) < end) {
		struct input *input = &inputs[chance(count)];
		size_t size;

		memcpy(last->data, input->data, input->size);
		size = damage(last->data, input->size, LARGEST);
		LLVMFuzzerTestOneInput((uint8_t *)last->data, size);
		/* What it has become is the start of more, but for now and then. */
		if (chance(64)) {
			memcpy(input->data, last->data, size);
			input->size = size;
		} else {
			read_input(input, files[input - inputs]);
		}
		tried++;
	}
	printf("%lu inputs\n", tried);
	free(inputs);
	return remove(path);
}

int main(int argc, char **argv)
{
	static struct input input;

	state = (uint64_t)time(NULL) * 2 + 1;
	if (argc > 3)
		return fuzz(atoi(argv[1]), argv[2], argv + 3, (uint32_t)argc - 3);
	if (argc != 2 || read_input(&input, argv[1]))
		return 2;
	LLVMFuzzerTestOneInput((uint8_t *)input.data, input.size);
	return 0;
}

#endif
