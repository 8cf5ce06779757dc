"""The kit: tools without a domain word in them (ids, clock, money, database, HTTP, SSE, signing).

Everything above may import the kit; the kit imports none of it.
"""
