"""The contract of a method as tests, for the methods of a package as for ours."""
