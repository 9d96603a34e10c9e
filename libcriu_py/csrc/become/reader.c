#define _GNU_SOURCE
#include "become/reader.h"

#include <string.h>
#include <sys/mman.h>

#define MOST_THREADS 65536
#define KNOWN_AREA_FLAGS (PLAN_SHARED | PLAN_GROWS_DOWN | PLAN_NO_RESERVE | PLAN_LOCKED | PLAN_PROTECT | PLAN_GUARD)
#define KNOWN_FILE_FLAGS (PLAN_OF_SNAPSHOT | PLAN_WRITABLE | PLAN_OF_MEMFD)
#define MOST_OF_FILE ((uint64_t)1 << 62)

_Static_assert(sizeof(struct plan_header) == 456 && sizeof(struct plan_area) == 40 && sizeof(struct plan_read) == 24 &&
	       sizeof(struct plan_file) == 32 && sizeof(struct plan_descriptor) == 48 && sizeof(struct plan_watch) == 24 &&
	       sizeof(struct plan_lock) == 32,
	       "as in native/plan.py");

/* Advice that outlives the call that gave it, and of which the kernel tells in smaps. */
static const uint64_t known_advice = 1ull << MADV_RANDOM | 1ull << MADV_SEQUENTIAL | 1ull << MADV_DONTFORK |
				     1ull << MADV_MERGEABLE | 1ull << MADV_HUGEPAGE | 1ull << MADV_NOHUGEPAGE |
				     1ull << MADV_DONTDUMP | 1ull << MADV_WIPEONFORK;

int lcp_plan_has(const struct plan_header *plan, struct plan_bytes bytes, int is_text)
{
	const char *at = plan_at(plan, bytes.offset);

	return bytes.offset < plan->size && bytes.length < plan->size - bytes.offset && !at[bytes.length] &&
	       (!is_text || (bytes.length && !memchr(at, '\0', bytes.length)));
}

static int has_rows(const struct plan_header *plan, struct plan_list list, size_t item)
{
	return !(list.offset % 8) && list.offset <= plan->size && list.count <= (plan->size - list.offset) / item;
}

static int is_range(uint64_t start, uint64_t end)
{
	return start < end && !(start % PLAN_PAGE) && !(end % PLAN_PAGE) && start >= LOWEST_ADDRESS &&
	       end <= HIGHEST_ADDRESS;
}

/* ---- files ----------------------------------------------------------------- */

/* A path below the snapshot's directory that does not leave it. */
static int is_inside(const char *path)
{
	for (const char *at = path, *end = path; *end; at = end + 1) {
		end = strchrnul(at, '/');
		if (end == at || (end - at == 2 && at[0] == '.' && at[1] == '.'))
			return 0;
	}
	return 1;
}

static const char *files_fault(const struct plan_header *plan)
{
	plan_for_each(struct plan_file, file, plan, plan->files) {
		const char *path = plan_at(plan, file->path.offset);

		if (!lcp_plan_has(plan, file->path, 1))
			return "the name of a file is not in it";
		if (file->flags & ~KNOWN_FILE_FLAGS || file->size > MOST_OF_FILE)
			return "a file is of an unknown kind";
		if (file->flags & PLAN_OF_SNAPSHOT ? file->flags & ~(uint32_t)PLAN_OF_SNAPSHOT || !is_inside(path) : *path != '/')
			return "a file is where none can be";
	}
	return NULL;
}

/* ---- memory ---------------------------------------------------------------- */

static const char *area_fault(const struct plan_header *plan, const struct plan_area *area)
{
	const struct plan_file *file = (const struct plan_file *)plan_at(plan, plan->files.offset) + area->file;
	int is_file = area->file != PLAN_NO_FILE;

	if (area->protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC) || area->flags & ~KNOWN_AREA_FLAGS ||
	    area->advice & ~known_advice)
		return "an area is of an unknown kind";
	if (is_file && area->file >= plan->files.count)
		return "an area is of a file that is not in it";
	if (area->offset % PLAN_PAGE || area->offset > MOST_OF_FILE || (!is_file && area->offset))
		return "an area begins where none can in its file";
	if (is_file && file->flags & PLAN_OF_SNAPSHOT &&
	    (area->flags & PLAN_SHARED || area->offset > file->size || area->end - area->start > file->size - area->offset))
		return "an area is not in its file of the snapshot";
	if (is_file && area->flags & PLAN_SHARED && area->protection & PROT_WRITE && !(file->flags & PLAN_WRITABLE))
		return "a shared area is of a file that is not writable";
	/* Reads into one would change the file; mmap refuses stacks of files. */
	if (is_file && ((area->flags & PLAN_SHARED && area->flags & PLAN_PROTECT) || area->flags & PLAN_GROWS_DOWN))
		return "an area of a file is filled by reads";
	if (area->flags & PLAN_GROWS_DOWN && area->flags & PLAN_SHARED)
		return "a shared area grows";
	if (area->flags & PLAN_GUARD && (is_file || area->flags & PLAN_PROTECT))
		return "a guard region has content";
	return NULL;
}

static int meet(uint64_t start, uint64_t end, uint64_t other_start, uint64_t other_end)
{
	return start < other_end && other_start < end;
}

static const char *areas_fault(const struct plan_header *plan)
{
	uint64_t last = 0;
	const char *fault;

	plan_for_each(struct plan_area, area, plan, plan->areas) {
		if (!is_range(area->start, area->end) || area->start < last)
			return "an area is where none can be";
		last = area->end;
		fault = area_fault(plan, area);
		if (fault)
			return fault;
		if (meet(area->start, area->end, plan->special_start, plan->special_end))
			return "an area is where the kernel's pages are";
	}
	return NULL;
}

static int can_be_filled(const struct plan_area *area)
{
	return (area->protection & PROT_WRITE || area->flags & PLAN_PROTECT) && !(area->flags & PLAN_GUARD) &&
	       !(area->flags & PLAN_SHARED && area->file != PLAN_NO_FILE);
}

/* Both lists are sorted: one walk finds that areas which can be filled cover each read. */
static const char *reads_fault(const struct plan_header *plan)
{
	const struct plan_area *area = plan_at(plan, plan->areas.offset), *end = area + plan->areas.count;
	uint64_t last = 0;

	plan_for_each(struct plan_read, read, plan, plan->reads) {
		uint64_t at = read->start;

		if (!is_range(read->start, read->end) || read->start < last || read->offset > MOST_OF_FILE)
			return "a read is where none can be";
		last = read->end;
		while (at < read->end) {
			while (area < end && area->end <= at)
				area++;
			if (area == end || area->start > at || !can_be_filled(area))
				return "a read is into no area that can be filled";
			at = area->end;
		}
	}
	return NULL;
}

/* Whether an address, or the one below where it is an end, is in a private area with this protection. */
static int is_in_area(const struct plan_header *plan, uint64_t address, int protection)
{
	plan_for_each(struct plan_area, area, plan, plan->areas)
		if (area->start <= address && address < area->end)
			return (area->protection & protection) == protection &&
			       !(area->flags & (PLAN_SHARED | PLAN_GUARD));
	return 0;
}

/* ---- the kernel and the processor ------------------------------------------- */

static const char *special_fault(const struct plan_header *plan)
{
	if (!plan->vdso_start && !plan->vdso_end && !plan->special_start && !plan->special_end)
		return plan->in_vdso ? "a thread is in a vdso that is not there" : NULL;
	if (!is_range(plan->special_start, plan->special_end) || !is_range(plan->vdso_start, plan->vdso_end) ||
	    plan->special_start > plan->vdso_start || plan->vdso_end != plan->special_end)
		return "the kernel's pages are where none can be";
	if (!lcp_plan_has(plan, plan->vdso_content, 0) ||
	    plan->vdso_content.length != plan->vdso_end - plan->vdso_start || plan->vdso_content.offset % 8)
		return "the content of the vdso is not in it";
	return NULL;
}

static const char *entry_fault(const struct plan_header *plan)
{
	if (!plan->threads || plan->threads > MOST_THREADS)
		return "it has no threads";
	if (!is_in_area(plan, plan->resume, PROT_READ | PROT_EXEC))
		return "it goes on where no code is";
	if (plan->stack % 8 || !is_in_area(plan, plan->stack - 8, PROT_READ | PROT_WRITE))
		return "it goes on without a stack";
	if (plan->fs % 8 || !is_in_area(plan, plan->fs, PROT_READ | PROT_WRITE))
		return "it goes on without thread-local memory";
	return NULL;
}

const char *lcp_plan_fault(const struct plan_header *plan, size_t size)
{
	static const char *(*const faults[])(const struct plan_header *) = {
		special_fault, files_fault, areas_fault, reads_fault, entry_fault, lcp_plan_descriptors_fault,
	};
	const char *fault = NULL;

	if (size < sizeof(*plan) || memcmp(plan->magic, PLAN_MAGIC, sizeof(plan->magic)))
		return "it is not a plan of libcriu_py";
	if (plan->format != PLAN_FORMAT || plan->header_size != sizeof(*plan))
		return "it is of another version of libcriu_py";
	if (plan->size != size)
		return "its size differs";
	if (plan->page_size != PLAN_PAGE)
		return "its pages are of another size";
	if (!has_rows(plan, plan->areas, sizeof(struct plan_area)) || !has_rows(plan, plan->reads, sizeof(struct plan_read)) ||
	    !has_rows(plan, plan->files, sizeof(struct plan_file)) ||
	    !has_rows(plan, plan->descriptors, sizeof(struct plan_descriptor)) ||
	    !has_rows(plan, plan->watches, sizeof(struct plan_watch)) || !has_rows(plan, plan->locks, sizeof(struct plan_lock)))
		return "a list that it names is not in it";
	for (size_t i = 0; !fault && i < sizeof(faults) / sizeof(*faults); i++)
		fault = faults[i](plan);
	return fault;
}
