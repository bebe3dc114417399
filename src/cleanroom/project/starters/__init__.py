"""What `init` knows of kinds of projects: from a folder's files to the phases that it really has.

`recognition` looks at a folder and its sub-folders; a module for each family of languages makes a
`Starter`, a value; `text` writes it as a make.toml; `compose` adds the services of a compose file.
Only files are read; nothing is run and nothing is written.
"""
