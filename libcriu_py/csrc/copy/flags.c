#define Py_LIMITED_API 0x030a0000
#include <Python.h>

#include "copy/flags.h"

int lcp_set_flag(void *flags, int item, long value)
{
	PyGILState_STATE gil = PyGILState_Ensure();
	PyObject *number = PyLong_FromLong(value);

	if (number)
		PyStructSequence_SetItem(flags, item, number);
	else
		PyErr_Clear();
	PyGILState_Release(gil);
	return number ? 0 : -1;
}
