"""How well passages are found: public sets of questions, and documents with one relevant passage among fifty."""
