"""Pictures: what people would rather look at than read. matplotlib's Figure API, no pyplot."""
