"""Search spaces that come with nasproxy, one file each; registered by entry point as anybody's would be."""
