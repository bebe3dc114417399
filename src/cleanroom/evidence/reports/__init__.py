"""From events to the result of a run, and from the result to JSON, JUnit, SARIF, HTML and
Markdown. Pure functions; who writes the files is the reporter.
"""
