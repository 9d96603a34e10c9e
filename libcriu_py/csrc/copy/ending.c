/* Ending a copy: what libcriu_py/exit.py does, where one thread is left and nothing has to be called or closed. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "copy/ending.h"

#include <unistd.h>

#include "common/process.h"

/* The objects of exit.for_ending(), in its order. */
enum object { THREADS, STARTING, THREAD_EXITS, COUNT_EXITS, GET_OBJECTS, CLASSES, MODULES, FLUSH, WATCH };

static int is_number(PyObject *function, long number)
{
	PyObject *result = PyObject_CallObject(function, NULL);
	int is_equal = result && PyLong_AsLong(result) == number;

	Py_XDECREF(result);
	return is_equal;
}

/* Whether a module is loaded whose objects might have to be closed, and which was not at the dump. */
static int is_loaded(PyObject *names)
{
	PyObject *modules = PyImport_GetModuleDict();

	for (Py_ssize_t i = 0; i < PyTuple_Size(names); i++)
		if (PyDict_Contains(modules, PyTuple_GetItem(names, i)))
			return 1;
	return 0;
}

/* Whether this is the file below a standard stream, which was opened in the copy. */
static int is_standard(PyObject *file)
{
	static const char *const names[] = { "__stdin__", "__stdout__", "__stderr__" };
	int is_one = 0;

	for (size_t i = 0; i < 3 && !is_one; i++) {
		PyObject *stream = PySys_GetObject(names[i]); /* borrowed */
		PyObject *buffer = stream ? PyObject_GetAttrString(stream, "buffer") : NULL;
		PyObject *raw = buffer ? PyObject_GetAttrString(buffer, "raw") : NULL;

		is_one = file == stream || file == buffer || file == raw;
		Py_XDECREF(buffer);
		Py_XDECREF(raw);
		PyErr_Clear();
	}
	return is_one;
}

/* Whether it is closed at the end, or has a finalizer: that of a class, a suspended generator, a task. */
static int has_to_be_closed(PyObject *thing, PyObject *classes)
{
	if (PyType_GetSlot(Py_TYPE(thing), Py_tp_finalize))
		return !is_standard(thing);
	for (Py_ssize_t i = 0; i < PyTuple_Size(classes); i++)
		if (PyType_IsSubtype(Py_TYPE(thing), (PyTypeObject *)PyTuple_GetItem(classes, i)))
			return !is_standard(thing);
	return 0;
}

/* Of those that have come since the dump; exit.for_ending() has looked at the others. */
static int has_open_files(PyObject *objects)
{
	PyObject *found = PyObject_CallObject(PyTuple_GetItem(objects, GET_OBJECTS), NULL);
	PyObject *classes = PyTuple_GetItem(objects, CLASSES);
	PyTypeObject *harmless = NULL;
	int result = !found;

	for (Py_ssize_t i = 0; found && !result && i < PyList_Size(found); i++) {
		PyObject *thing = PyList_GetItem(found, i);

		if (Py_TYPE(thing) == harmless)
			continue;
		result = has_to_be_closed(thing, classes);
		harmless = Py_TYPE(thing);
	}
	Py_XDECREF(found);
	return result;
}

/* Whether the launcher watches this copy, which then has to say in Python that it ends. */
static int is_watched(PyObject *prefix)
{
	PyObject *path;
	int result = 1;

	if (prefix == Py_None)
		return 0;
	path = PyUnicode_FromFormat("%U%d", prefix, (int)getpid());
	if (path) {
		PyObject *bytes = PyUnicode_EncodeFSDefault(path);

		result = !bytes || !access(PyBytes_AsString(bytes), F_OK);
		Py_XDECREF(bytes);
		Py_DECREF(path);
	}
	return result;
}

static int flush(const char *name, PyObject *method)
{
	PyObject *stream = PySys_GetObject(name), *result; /* borrowed */

	if (!stream)
		return -1;
	if (stream == Py_None)
		return 0;
	result = PyObject_CallMethodObjArgs(stream, method, NULL);
	Py_XDECREF(result);
	return result ? 0 : -1;
}

void lcp_end_if_simple(void *given, int status)
{
	PyObject *objects = given;

	if (objects == Py_None || PyDict_Size(PyTuple_GetItem(objects, THREADS)) != 1 ||
	    PyDict_Size(PyTuple_GetItem(objects, STARTING)) || PyList_Size(PyTuple_GetItem(objects, THREAD_EXITS)) ||
	    !is_number(PyTuple_GetItem(objects, COUNT_EXITS), 0) || is_loaded(PyTuple_GetItem(objects, MODULES)) ||
	    is_watched(PyTuple_GetItem(objects, WATCH)) || has_open_files(objects) || flush("stdout", PyTuple_GetItem(objects, FLUSH)) ||
	    flush("stderr", PyTuple_GetItem(objects, FLUSH))) {
		PyErr_Clear(); /* Python finds the same, and says so */
		return;
	}
	lcp_exit_now(status);
}
