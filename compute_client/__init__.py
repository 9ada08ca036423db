"""Any Python function as scalable asynchronous compute: a queue, a function, a result."""
