/*
 * The first steps of a copy, in C from the return of its dump to its program, and from the program's end to its own:
 * libcriu_py/dump/arrival.py has the same in Python, for whatever is unusual.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "copy/arrival.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/descriptors.h"
#include "common/process.h"
#include "copy/ending.h"
#include "copy/pages.h"
#include "copy/prefetch.h"
#include "copy/python_clocks.h"
#include "copy/streams.h"

/* The objects of libcriu_py/dump/takeover.py, in its order. */
enum object {
	ARGV, ORIG_ARGV, ENVIRON, ENVIRONB, DATA, KEPT, RAISED, ZONE, REOPEN, STREAMS, TITLE, CALLS, MORE_CALLS, RUN, CODE, MODULE, ENDED,
	THREAD, NATIVE_ID, ENDING,
};

#define MOST_INTERRUPTIONS 1000

static struct lcp_arrival expected;
static PyObject *objects;
static enum lcp_arrived state;
static struct lcp_received received;
static int fds[MAX_FDS], fd_count;
static int64_t arrived_at[2];

static PyObject *get(enum object name)
{
	return PyTuple_GetItem(objects, name);
}

/* ---- receiving -------------------------------------------------------- */

static int receive(void)
{
	char tag[1];

	fd_count = lcp_receive_tagged(expected.slot, tag, fds, MAX_FDS);
	while (fd_count > 0 && *tag == 'P') { /* an idle copy fetches what its program is likely to use */
		for (int i = 0; i < fd_count; i++) {
			if (!i)
				lcp_fetch_pages(fds[i]);
			close(fds[i]);
		}
		fd_count = lcp_receive_tagged(expected.slot, tag, fds, MAX_FDS);
	}
	if (fd_count <= 0)
		return -1;
	state = LCP_RECEIVED;
	return fd_count == 1 ? 0 : -1;
}

static void fetch_working_set(void)
{
	char path[4096];

	if (snprintf(path, sizeof(path), "%s/%s", received.fields[14], expected.working_set) < (int)sizeof(path))
		lcp_prefetch(path);
}

/* ---- Python's part ---------------------------------------------------- */

static PyObject *arguments(void)
{
	PyObject *list = PyList_New(received.argc);

	for (int i = 0; list && i < received.argc; i++) {
		PyObject *text = PyUnicode_DecodeFSDefault(received.argv[i]);

		if (!text || PyList_SetItem(list, i, text)) {
			Py_DECREF(list);
			return NULL;
		}
	}
	return list;
}

/* What an interpreter's launcher has been called by (VALUE of apply.c), if that is known. */
static int set_executable(void)
{
	PyObject *name;
	int result;

	if (!*received.fields[12])
		return 0;
	name = PyUnicode_DecodeFSDefault(received.fields[12]);
	result = !name || PySys_SetObject("executable", name) || PyList_SetItem(get(ORIG_ARGV), 0, Py_NewRef(name));
	Py_XDECREF(name);
	return result ? -1 : 0;
}

/* In place: a module may hold on to the lists. */
static int set_arguments(void)
{
	PyObject *list = arguments();
	int result = !list || PyList_SetSlice(get(ARGV), 1, PY_SSIZE_T_MAX, list) ||
		     PyList_SetSlice(get(ORIG_ARGV), expected.prefix, PY_SSIZE_T_MAX, list) || set_executable();

	Py_XDECREF(list);
	return result ? -1 : 0;
}

static int add_variable(PyObject *variables, const char *entry)
{
	const char *equals = strchr(entry, '=');
	PyObject *name, *value;
	int result;

	if (!equals)
		return -1;
	name = PyBytes_FromStringAndSize(entry, equals - entry);
	value = PyBytes_FromString(equals + 1);
	result = !name || !value || PyDict_SetItem(variables, name, value);
	Py_XDECREF(name);
	Py_XDECREF(value);
	return result ? -1 : 0;
}

static int set_environment(void)
{
	PyObject *variables = PyDict_New(), *old = PyObject_GetAttr(get(ENVIRON), get(DATA));
	int result = !variables || !old;

	for (char **entry = received.env; *entry && !result; entry++)
		result = add_variable(variables, *entry);
	/* The old ones are kept: freeing them would write to the pages that hold them. */
	result = result || PyList_Append(get(KEPT), old) || PyObject_SetAttr(get(ENVIRON), get(DATA), variables) ||
		 PyObject_SetAttr(get(ENVIRONB), get(DATA), variables);
	Py_XDECREF(variables);
	Py_XDECREF(old);
	return result ? -1 : 0;
}

static int call(PyObject *function)
{
	PyObject *result = function == Py_None ? Py_NewRef(Py_None) : PyObject_CallObject(function, NULL);

	Py_XDECREF(result);
	return result ? 0 : -1;
}

/* A signal handler may have raised it, wherever Python looked for signals, as at the start of each function. */
static void keep_raised(void)
{
	PyObject *type, *error, *trace;

	if (!PyErr_Occurred())
		return;
	PyErr_Fetch(&type, &error, &trace);
	PyErr_NormalizeException(&type, &error, &trace);
	if (error && trace)
		PyException_SetTraceback(error, trace);
	if (error)
		PyList_Append(get(RAISED), error);
	Py_XDECREF(type);
	Py_XDECREF(error);
	Py_XDECREF(trace);
}

static int set_up_streams(void)
{
	if (!lcp_set_up_streams(get(STREAMS), &expected))
		return 0;
	if (PyErr_Occurred()) /* perhaps of a signal handler: then Python begins anew */
		return -1;
	return call(get(REOPEN));
}

/* Whatever fails is done again in Python, and reported from there. */
static int set_up(void)
{
	if (!set_arguments() && !set_environment() && (lcp_same_zone(&expected) || !call(get(ZONE))) &&
	    !set_up_streams() && !call(get(TITLE)))
		return 0;
	keep_raised();
	PyErr_Clear();
	return -1;
}

static int call_all(PyObject *calls)
{
	for (Py_ssize_t i = 0; i < PyTuple_Size(calls); i++)
		if (call(PyTuple_GetItem(calls, i)))
			return -1;
	return 0;
}

/* A native copy has other ids than the dumped process: threading and the interpreter keep this thread's. */
static int renew_id(void)
{
	unsigned long *place = (unsigned long *)(uintptr_t)expected.id_place;
	unsigned long id = (unsigned long)gettid();
	PyObject *number;
	int result;

	if (!place || *place == id)
		return 0;
	*place = id;
	number = PyLong_FromUnsignedLong(id);
	result = !number || PyObject_SetAttr(get(THREAD), get(NATIVE_ID), number);
	Py_XDECREF(number);
	return result ? -1 : 0;
}

/*
 * Return the namespace of the program, a new reference. Where copies end fast, what there was at the dump is not collected at
 * the end (exit.freeze): a module of the copy's own takes the place of the one that was made then.
 */
static PyObject *main_space(void)
{
	PyObject *made = PyModule_GetDict(get(MODULE)), *module, *space; /* the first is borrowed */

	if (get(ENDING) == Py_None)
		return Py_NewRef(made);
	module = PyModule_New("__main__");
	space = module ? PyModule_GetDict(module) : NULL;
	if (!space || PyDict_Update(space, made) || PyDict_SetItemString(PyImport_GetModuleDict(), "__main__", module)) {
		Py_XDECREF(module);
		return NULL;
	}
	Py_INCREF(space);
	Py_DECREF(module);
	return space;
}

/* Run the program; -1 with its exception. */
static int run(void)
{
	int is_same = lcp_same_variables(&expected);
	PyObject *result, *space;

	if (renew_id() || call_all(get(is_same ? CALLS : MORE_CALLS)))
		return -1;
	if (expected.slot >= 0) { /* not if these calls have done it */
		lcp_send(expected.slot, "R", 1);
		close(expected.slot);
		expected.slot = -1;
	}
	if (get(CODE) == Py_None || !lcp_same_main(&expected))
		return call(get(RUN));
	space = main_space();
	result = space ? PyEval_EvalCode(get(CODE), space, space) : NULL;
	Py_XDECREF(space);
	Py_XDECREF(result);
	return result ? 0 : -1;
}

/* The status that an exception of a program stands for; -1 if it says more than that. */
static int status_of(PyObject *error)
{
	PyObject *code;
	int status = -1;

	if (!error)
		return 0;
	if (!PyErr_GivenExceptionMatches(error, PyExc_SystemExit))
		return -1;
	code = PyObject_GetAttrString(error, "code");
	if (code == Py_None)
		status = 0;
	else if (code && Py_TYPE(code) == &PyLong_Type)
		status = (int)(PyLong_AsLongLong(code) & 0xff);
	Py_XDECREF(code);
	PyErr_Clear();
	return status;
}

/* End as the program did; if by an exception that is to be shown, go back to where the dump was called. */
static void end(PyObject *ended, PyObject *ending)
{
	PyObject *type, *error, *trace, *result = NULL;
	int status;

	PyErr_Fetch(&type, &error, &trace);
	PyErr_NormalizeException(&type, &error, &trace);
	status = status_of(error);
	if (status >= 0)
		lcp_end_if_simple(ending, status);
	if (error && trace)
		PyException_SetTraceback(error, trace);
	/*
	 * Another signal may interrupt it, even where it is entered: the program has ended all the same, and must not be run
	 * again.
	 */
	for (int i = 0; !result && i < MOST_INTERRUPTIONS; i++) {
		result = PyObject_CallFunctionObjArgs(ended, error ? error : Py_None, NULL);
		if (!result && PyErr_ExceptionMatches(PyExc_Exception))
			PyErr_WriteUnraisable(ended);
		PyErr_Clear();
	}
	Py_XDECREF(result);
	Py_XDECREF(type);
	Py_XDECREF(error);
	Py_XDECREF(trace);
}

static void arrive(void)
{
	PyGILState_STATE gil;
	PyObject *ended, *ending;
	struct timespec now;

	lcp_on_arrival = NULL;
	state = LCP_NOT_ARRIVED;
	if (expected.reading)
		lcp_go_on_from(expected.reading);
	clock_gettime(CLOCK_REALTIME, &now);
	arrived_at[0] = lcp_monotonic();
	arrived_at[1] = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
	if (receive() || lcp_read_request(&received, fds[0], &expected))
		return;
	fetch_working_set();
	if (lcp_apply_request(&received, &expected))
		return;
	gil = PyGILState_Ensure();
	if (!set_up()) {
		close(fds[0]);
		fd_count = 0;
		lcp_send(expected.slot, "S", 1);
		state = LCP_APPLIED;
	}
	if (state == LCP_APPLIED && get(RUN) != Py_None) {
		if (expected.unwanted >= 0)
			close(expected.unwanted);
		/* A further dump in the program notes other objects. */
		ended = Py_NewRef(get(ENDED));
		ending = Py_NewRef(get(ENDING));
		run();
		state = LCP_ENDED;
		end(ended, ending);
		Py_DECREF(ended);
		Py_DECREF(ending);
	}
	PyGILState_Release(gil);
}

/* ---- for Python ------------------------------------------------------- */

void lcp_expect_arrival(const struct lcp_arrival *arrival, void *given)
{
	PyGILState_STATE gil = PyGILState_Ensure();

	lcp_on_arrival = given ? arrive : NULL;
	state = LCP_NOT_ARRIVED;
	arrived_at[0] = arrived_at[1] = 0;
	if (arrival)
		expected = *arrival;
	Py_XINCREF((PyObject *)given);
	Py_XDECREF(objects);
	objects = given;
	PyGILState_Release(gil);
}

enum lcp_arrived lcp_has_arrived(void)
{
	return state;
}

void lcp_arrived_at(int64_t *times)
{
	memcpy(times, arrived_at, sizeof(arrived_at));
}

int lcp_received_fds(int *into, int limit)
{
	int count = fd_count > 0 && fd_count <= limit ? fd_count : 0;

	memcpy(into, fds, (size_t)count * sizeof(*fds));
	return count;
}

const char *lcp_received_block(size_t *size)
{
	*size = received.size;
	return received.block;
}
