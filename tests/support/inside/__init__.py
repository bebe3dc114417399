"""What programs do inside as they do outside: rows of data, and what carries them out."""
