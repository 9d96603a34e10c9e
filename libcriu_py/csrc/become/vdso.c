#define _GNU_SOURCE
#include "become/vdso.h"

#ifdef __x86_64__

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "become/reader.h"
#include "common/cleanup.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#define PREFIX "__vdso_"
#define JUMP_SIZE 12
#define LARGEST (1u << 20)

/* What a function is where this kernel's vdso lacks it; its arguments are those of the system call. */
static const struct { const char *name; uint32_t number; } calls[] = {
	{ "clock_gettime", SYS_clock_gettime }, { "gettimeofday", SYS_gettimeofday }, { "time", SYS_time },
	{ "clock_getres", SYS_clock_getres },	{ "getcpu", SYS_getcpu },	      { "getrandom", SYS_getrandom },
};

/* Functions of a vdso, which is not trusted to be one. */
struct functions {
	const unsigned char *image;
	size_t size;
	const Elf64_Sym *symbols;
	size_t count;
	const char *names;
	size_t names_size;
};

int lcp_vdso_is_same(const struct plan_header *plan)
{
	const void *here = (const void *)getauxval(AT_SYSINFO_EHDR);

	/* The content has the distance to the data before it, and so its size. */
	return !plan->vdso_start ||
	       (here && !memcmp(here, plan_at(plan, plan->vdso_content.offset), plan->vdso_content.length));
}

/* ---- what this kernel has ------------------------------------------------------- */

/* Find the kernel's pages in /proc/self/maps: [vvar] and its like, and right behind them [vdso]; 0 or -1. */
static int find_pages(uint64_t *start, uint64_t *text, uint64_t *end)
{
	AUTO_FCLOSE FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t first, last, behind = 0;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "[vvar") && !strstr(line, "[vdso]"))
			continue;
		if (sscanf(line, "%lx-%lx", &first, &last) != 2)
			return -1;
		if (first != behind)
			*start = first;
		behind = last;
		if (!strstr(line, "[vdso]"))
			continue;
		*text = first;
		*end = last;
		return 0;
	}
	return -1;
}

/* ---- symbols ---------------------------------------------------------------------- */

static int is_inside(const struct functions *in, uint64_t offset, uint64_t size)
{
	return offset <= in->size && size <= in->size - offset;
}

static int find_functions(struct functions *in, const void *image, size_t size)
{
	const Elf64_Ehdr *header = image;
	const Elf64_Shdr *sections;

	*in = (struct functions){ .image = image, .size = size };
	if (size < sizeof(*header) || memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_ident[EI_CLASS] != ELFCLASS64 ||
	    header->e_shoff % 8 || header->e_shentsize != sizeof(*sections) ||
	    !is_inside(in, header->e_shoff, (uint64_t)header->e_shnum * sizeof(*sections)))
		return -1;
	sections = (const void *)(in->image + header->e_shoff);
	for (int i = 0; i < header->e_shnum; i++) {
		const Elf64_Shdr *table = &sections[i], *names = &sections[table->sh_link];

		if (table->sh_type != SHT_DYNSYM)
			continue;
		if (table->sh_link >= header->e_shnum || table->sh_offset % 8 || table->sh_entsize != sizeof(Elf64_Sym) ||
		    !is_inside(in, table->sh_offset, table->sh_size) || !is_inside(in, names->sh_offset, names->sh_size) ||
		    !names->sh_size || in->image[names->sh_offset + names->sh_size - 1])
			return -1;
		in->symbols = (const void *)(in->image + table->sh_offset);
		in->count = table->sh_size / sizeof(Elf64_Sym);
		in->names = (const char *)in->image + names->sh_offset;
		in->names_size = names->sh_size;
		return 0;
	}
	return -1;
}

/* The name of a function, without a prefix that some have; NULL if the symbol is none. */
static const char *name_of(const struct functions *in, const Elf64_Sym *symbol)
{
	const char *name = in->names + symbol->st_name;

	if (ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || symbol->st_shndx == SHN_UNDEF || symbol->st_name >= in->names_size ||
	    !is_inside(in, symbol->st_value, symbol->st_size))
		return NULL;
	return strncmp(name, PREFIX, strlen(PREFIX)) ? name : name + strlen(PREFIX);
}

static const Elf64_Sym *find_function(const struct functions *in, const char *name)
{
	for (size_t i = 0; i < in->count; i++) {
		const char *found = name_of(in, &in->symbols[i]);

		if (found && !strcmp(found, name))
			return &in->symbols[i];
	}
	return NULL;
}

/* ---- the copy ------------------------------------------------------------------------ */

/* A jump that leaves all registers that have arguments. */
static void put_jump(unsigned char *at, uint64_t to)
{
	memcpy(at, "\x48\xb8", 2); /* movabs $to, %rax */
	memcpy(at + 2, &to, sizeof(to));
	memcpy(at + 10, "\xff\xe0", 2); /* jmp *%rax */
}

static void put_call(unsigned char *at, uint32_t number)
{
	*at = 0xb8; /* mov $number, %eax */
	memcpy(at + 1, &number, sizeof(number));
	memcpy(at + 5, "\x0f\x05\xc3", 3); /* syscall; ret */
}

/* The state that getrandom keeps in the program's memory is of the kernel that made it. */
static int is_redirectable(const char *name)
{
	return strcmp(name, "getrandom");
}

/* Change a function of the copy; 0, or -1 if nothing can be put in its place. */
static int redirect(unsigned char *copy, const Elf64_Sym *symbol, const char *name, const struct functions *here,
		    uint64_t text)
{
	const Elf64_Sym *target = is_redirectable(name) ? find_function(here, name) : NULL;

	if (symbol->st_size < JUMP_SIZE)
		return -1;
	if (target) {
		put_jump(copy + symbol->st_value, text + target->st_value);
		return 0;
	}
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (!strcmp(calls[i].name, name)) {
			put_call(copy + symbol->st_value, calls[i].number);
			return 0;
		}
	return -1;
}

static int redirect_all(unsigned char *copy, const struct functions *there, const struct functions *here, uint64_t text,
			struct why *why)
{
	int count = 0;

	for (size_t i = 0; i < there->count; i++) {
		const char *name = name_of(there, &there->symbols[i]);

		if (!name || !strcmp(name, "sgx_enter_enclave"))
			continue;
		if (redirect(copy, &there->symbols[i], name, here, text))
			return lcp_why(why, "the vdso of the dump has a function, %.40s, that this kernel's lacks", name);
		count++;
	}
	return count ? 0 : lcp_why(why, "the vdso of the dump has no functions");
}

int lcp_vdso_make(const struct plan_header *plan, uint64_t at, uint64_t *text, struct why *why)
{
	const void *content = plan_at(plan, plan->vdso_content.offset);
	size_t size = plan->vdso_content.length;
	AUTO_FREE unsigned char *copy = malloc(size);
	struct functions there, here;
	uint64_t start = 0, own = 0, end = 0;
	AUTO_CLOSE int fd = -1;

	if (find_pages(&start, &own, &end) || find_functions(&here, (const void *)own, end - own))
		return lcp_why(why, "this kernel's vdso cannot be found, and it is not that of the dump");
	if (!copy || size > LARGEST || find_functions(&there, content, size))
		return lcp_why(why, "the vdso of the dump is none that is known");
	memcpy(copy, content, size);
	*text = at + (own - start);
	if (redirect_all(copy, &there, &here, *text, why))
		return -1;
	/* Memory that was written may not become executable everywhere; a file may be mapped so. */
	fd = memfd_create("libcriu_py-vdso", MFD_CLOEXEC | MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("libcriu_py-vdso", MFD_CLOEXEC);
	if (fd < 0 || write(fd, copy, size) != (ssize_t)size)
		return lcp_why(why, "a copy of the vdso of the dump cannot be made: %s", strerror(errno));
	return lcp_keep_fd(&fd);
}

#endif
