"""Static web page that runs an exported model in the visitor's browser, and the runtime that it needs."""
