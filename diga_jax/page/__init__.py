"""report.html: a working directory, or several beside each other, as one page without network."""
