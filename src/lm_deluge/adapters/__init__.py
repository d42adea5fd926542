"""One adapter per wire API: conversation to request, bytes to events; without I/O."""
