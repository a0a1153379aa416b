"""What FreshData serves over HTTP."""
