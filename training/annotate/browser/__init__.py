"""Drawing masks in the browser: a page, the small server behind it, and the files that it writes."""
